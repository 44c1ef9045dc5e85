// mdBook's search takes what stands between two spaces as a word. Chinese has no spaces, so this splits
// Chinese text into pairs of characters, and makes the index anew from them.
(() => {
    if (document.documentElement.lang !== "zh-CN") return;

    const RUNS = /\p{Script=Han}+|[^\s\p{Script=Han}\p{P}]+/gu;
    const isHan = (run) => /^\p{Script=Han}/u.test(run);
    const pairs = (run) => (run.length === 1 ? [run] : [...run.slice(1)].map((next, i) => run[i] + next));

    elasticlunr.tokenizer = (text) =>
        (String(text ?? '').toLowerCase().match(RUNS) ?? []).flatMap((run) => (isHan(run) ? pairs(run) : [run]));

    elasticlunr.Index.load = (stored) => {
        const index = new elasticlunr.Index();
        index.setRef(stored.ref);
        stored.fields.forEach((field) => index.addField(field));
        Object.values(stored.documentStore.docs).forEach((doc) => index.addDoc(doc));
        return index;
    };
})();
