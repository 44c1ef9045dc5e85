# inetd's own echo, in the form of inetd(8) and of the file that Debian installs: `echo stream tcp nowait root internal`.
# inetd takes the port of an internal service from /etc/services, so it gets a file of its own there, which nobody else
# sees. judge --known asks it for our promises. Its arguments are a host and a port.
case $1 in *:*) host=[$1] tcp=tcp6 ;; *) host=$1 tcp=tcp ;; esac
exec unshare -rm sh -c 'mount -t tmpfs none /mnt &&
    echo "echo $2/tcp" >/mnt/services && mount --bind /mnt/services /etc/services &&
    echo "$1:echo stream $3 nowait root internal" >/mnt/inetd.conf && exec inetd -i /mnt/inetd.conf' sh "$host" "$2" $tcp
