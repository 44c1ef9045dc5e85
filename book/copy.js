// The button of a transcript copies the commands. mdBook calls this function for each listing.
playground_text = ((whole) => (listing, ...options) => {
    const commands = [...listing.querySelectorAll('.terminals b')].map((command) => command.textContent);
    return commands.join('\n') || whole(listing, ...options);
})(playground_text);
