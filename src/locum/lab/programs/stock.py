"""Stock programs at the device, of every kind that waits for a socket, each with a port of its own.

Each has its waiting method, its command, and its expected output. None of them is ours but the programs of
`locum.lab.programs.waiters`, for ways of waiting that no stock program at hand has.

In commands, `{server}` is the correspondent, `{home}` the device, `{port}` the program's own port, `{file}` the file that
travels (`{name}` to servers of the stage), `{large}` one from the device, `{out}` where it arrives (`{received}`/`{base}`), `{folder}` a folder with certificates, keys and settings, `{python}` a Python with the lab.
"""

from dataclasses import dataclass

SIZE = 1_200_000
"""Bytes of the file that travels to the device."""
LARGE = 6_000_000
"""Bytes of the file that travels from the device: more than the kernel's send buffer takes from a program."""
PACE = 30_000
"""Bytes per second of each file until the device wakes: no program is at its end before it sleeps, however slow the machine."""
BASE_PORT = 60_101
"""The ports are from here on, below those that the lab's clients get; tshark knows none of them."""


@dataclass(frozen=True, slots=True)
class Talk:
    """Lines for a program's standard input: before the sleep, during it, after it. Its input ends then.

    `heard` is in `{out}` before the last lines are sent: the data of the sleep must be noticed without them.
    `at_peer` has the correspondent's command say the lines, not the device's.
    """

    before: str
    asleep: str
    after: str
    heard: str = ""
    at_peer: bool = False


@dataclass(frozen=True, slots=True)
class Stock:
    """One program. `device` and `peer` are shell commands; `serves` means that the device listens.

    `server` is the server of the stage (`stage.py`) that answers on its port. `text` is wanted in `{out}`, where the bytes of
    `{file}` are wanted without one, of `{large}` if it `sends`. `files` copies of the file travel; of a `through` one the rest arrives while the
    device sleeps. `forever` programs do not end by themselves.
    """

    name: str
    waits: str
    device: str
    peer: str = ""
    server: str = ""
    serves: bool = False
    connections: int = 1
    files: int = 1
    through: bool = False
    sends: bool = False
    text: str = ""
    talk: Talk | None = None
    forever: bool = False


def waiter(kind: str, waits: str, connections: int = 1) -> Stock:
    """One of the lab's own waiters: it ends when it has noticed the last line, sent during the sleep."""
    return Stock(
        f"waiter {kind}",
        waits,
        f"exec {{python}} -m locum.lab.programs.waiters {kind} {{server}} {{port}} {{out}}",
        f"exec {{python}} -m locum.lab.programs.teller {{port}} {connections}",
        connections=connections,
        text="before\nasleep\n",
        talk=Talk("before", "asleep", "", at_peer=True),
    )


HTTP = "http://{server}:{port}/{name}"
HTTPS = "https://{server}:{port}/{name}"
SSH = (
    "-F none -i {folder}/ssh/user -o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no -o LogLevel=ERROR"
    " -o BatchMode=yes"
)
SLOWLY = f"{{python}} -m locum.lab.programs.slowly {PACE} {{awake}}"
"""A command of a pipe that reads at the pace of the line, so that its writer has to wait."""
THREE = "before\nasleep\nafter\n"
_NODE_CLIENT = "require('http').get(process.argv[1], answer => answer.pipe(require('fs').createWriteStream(process.argv[2])))"
_NODE_SERVER = (
    "require('http').createServer((ask, answer) => require('fs').createReadStream(process.argv[2]).pipe(answer))"
    ".listen(process.argv[1])"
)
_THREADS = (
    "import sys,urllib.request,concurrent.futures as f;get=lambda n:urllib.request.urlopen(sys.argv[1]).read();"
    "got=set(f.ThreadPoolExecutor(4).map(get,range(4)));assert len(got)==1;open(sys.argv[2],'wb').write(got.pop())"
)
_CURL = "curl --silent --show-error --fail"

RECEIVERS = (
    Stock("curl, HTTP", "poll", f"exec {_CURL} -o {{out}} {HTTP}", server="http"),
    Stock(
        "curl -Z, HTTP/2",
        "poll; two streams of one TLS connection",
        files=2,
        device=
        f"exec {_CURL} -Z --http2 --cacert {{folder}}/tls/certificate -o {{out}}.2 {HTTPS} -o {{out}} {HTTPS}",
        server="https",
        through=True,
    ),
    Stock(
        "wget, HTTPS", "select; GnuTLS", f"exec wget -q --ca-certificate {{folder}}/tls/certificate -O {{out}} {HTTPS}",
        server="https",
        through=True,
    ),
    Stock(
        "aria2c, HTTP",
        "epoll",
        f"exec aria2c -q -x1 --no-conf --file-allocation=none --allow-overwrite -d {{received}} -o {{base}} {HTTP}",
        server="http",
        through=True,
    ),
    Stock("node, HTTP", "epoll (libuv)", f'exec node -e "{_NODE_CLIENT}" {HTTP} {{out}}', through=True, server="http"),
    Stock(
        "hey, HTTP",
        "epoll, edge-triggered (Go), threads",
        f"hey -n 2 -c 2 -t 0 {HTTP} | grep -A1 'Status code' > {{out}}",
        connections=2,
        files=2,
        text="Status code distribution:\n  [200]\t2 responses\n",
        server="http",
        through=True,
    ),
    Stock(
        "ab, HTTP",
        "epoll (APR)",
        f"ab -q -n 2 -c 2 -s 300 {HTTP} | grep -E '^(Complete|Failed|HTML)' > {{out}}",
        connections=2,
        files=2,
        text=f"Complete requests:      2\nFailed requests:        0\nHTML transferred:       {2 * SIZE} bytes\n",
        server="http",
        through=True,
    ),
    Stock("lwp-download", "select (Perl)", f"exec lwp-download {HTTP} {{out}} > /dev/null", server="http"),
    Stock("busybox wget", "a blocking read", f"exec busybox wget -q -O {{out}} {HTTP}", server="http"),
    Stock(
        "openssl s_client",
        "select; TLS over a bare socket",
        "printf 'GET /{name} HTTP/1.0\\r\\n\\r\\n' | openssl s_client -quiet -ign_eof -connect {server}:{port} 2> /dev/null"
        " | sed '1,/^\\r$/d' > {out}",
        server="https",
    ),
    Stock("urllib, 4 threads", "blocking reads in threads", f'exec {{python}} -c "{_THREADS}" {HTTP} {{out}}', connections=4, files=4, server="http"),
    Stock("lftp, FTP", "poll; a control and a data connection",
          "exec lftp -c 'set net:timeout 300; open -u anonymous,a ftp://{server}:{port}; get {name} -o {out}'", connections=2, server="ftp"),
    Stock("scp", "poll; ssh as a child behind pipes", f"exec scp -q {SSH} -P {{port}} root@{{server}}:{{file}} {{out}}", server="ssh"),
    Stock(
        "rsync",
        "select; children that share a socket",
        "exec rsync --timeout=300 rsync://{server}:{port}/root/{name} {out}",
        "exec rsync --daemon --no-detach --port={port} --config={folder}/rsyncd.conf",
        through=True,
    ),
    Stock(
        "git clone",
        "blocking reads; index-pack as a child",
        "git clone -q git://{server}:{port}/film {out}.git && cp {out}.git/{name} {out}",
        "exec git daemon --port={port} --reuseaddr --base-path={folder}/git --export-all {folder}/git",
    ),
    Stock("ncat", "select", "exec ncat --recv-only {server} {port} > {out}", "exec ncat --send-only -l {port} < {file}"),
)  # fmt: skip
"""Programs of the device that receive."""

SENDERS = (
    Stock(
        "curl, PUT",
        "poll; fed by a pipe, under timeout(1)",
        f"{SLOWLY} < {{large}} | timeout 300 {_CURL} -o {{out}} -H Expect: -T - http://{{server}}:{{port}}/upload",
        text=f"{LARGE} bytes\n",
        server="http",
    ),
    Stock(
        "nc",
        "poll; its reader is slow",
        "exec nc.openbsd -N {server} {port} < {large}",
        f"exec socat -u TCP-LISTEN:{{port}},reuseaddr STDOUT | {SLOWLY} > {{out}}",
        sends=True,
    ),
    Stock(
        "nginx",
        "epoll, edge-triggered; sendfile",
        "exec nginx -p {folder}/device -c {folder}/device/nginx.conf -e {folder}/device/error.log",
        f"{_CURL} http://{{home}}:{{port}}/large | {SLOWLY} > {{out}}",
        serves=True,
        sends=True,
        forever=True,
    ),
    Stock(
        "node, server",
        "epoll (libuv)",
        f'exec node -e "{_NODE_SERVER}" {{port}} {{large}}',
        f"{_CURL} http://{{home}}:{{port}}/ | {SLOWLY} > {{out}}",
        serves=True,
        sends=True,
        forever=True,
    ),
    Stock(
        "sshd",
        "poll; a child for each connection",
        "exec /usr/sbin/sshd -D -e -f {folder}/device-ssh/sshd_config",
        f"ssh {SSH} -p {{port}} root@{{home}} cat {{large}} | {SLOWLY} > {{out}}",
        serves=True,
        sends=True,
        forever=True,
    ),
    Stock(
        "socat, cat",
        "a blocking write to a socket as standard output",
        "exec socat TCP-LISTEN:{port},fork,reuseaddr EXEC:'cat {large}',nofork",
        f"nc.openbsd -d {{home}} {{port}} | {SLOWLY} > {{out}}",
        serves=True,
        sends=True,
        forever=True,
    ),
)  # fmt: skip
"""Programs of the device that send, to readers that keep the pace of the line."""

TALKERS = (
    Stock(
        "ssh, a shell",
        "poll; a terminal session",
        f"exec ssh -T {SSH} -p {{port}} root@{{server}} cat > {{out}}",
        text=THREE,
        talk=Talk("before", "asleep", "after", "before\nasleep\n"),
        server="ssh",
    ),
    Stock(
        "telnet",
        "select",
        "telnet {server} {port} | stdbuf -o0 tr -d '\\r' > {out}",
        "exec socat TCP-LISTEN:{port},reuseaddr EXEC:cat",
        text="Trying {server}...\nConnected to {server}.\nEscape character is '^]'.\n" + THREE,
        talk=Talk("before", "asleep", "after", "before\nasleep\n"),
    ),
    Stock(
        "mosquitto_sub",
        "poll",
        "exec mosquitto_sub -h {server} -p {port} -k 300 -t all -C 3 > {out}",
        "exec mosquitto_pub -h 127.0.0.1 -p {port} -t all -l",
        text=THREE,
        talk=Talk("before", "asleep", "after", "before\nasleep\n", at_peer=True),
        server="mqtt",
    ),
    Stock(
        "redis-cli",
        "a blocking read",
        "exec redis-cli -h {server} -p {port} -r 3 blpop queue 0 > {out}",
        "exec redis-cli -h 127.0.0.1 -p {port} > /dev/null",
        text="".join(f"queue\n{word}\n" for word in THREE.split()),
        talk=Talk(
            "rpush queue before", "rpush queue asleep", "rpush queue after", "queue\nasleep\n", at_peer=True
        ),
        server="redis",
    ),
    Stock(
        "memcached",
        "epoll (libevent), threads",
        "exec memcached -u root -t 4 -p {port} -U 0 -l {home}",
        "exec nc.openbsd -C {home} {port} | stdbuf -o0 tr -d '\\r' > {out}",
        serves=True,
        forever=True,
        text="STORED\nVALUE word 0 6\nlasted\nEND\nVALUE word 0 6\nlasted\nEND\n",
        talk=Talk("set word 0 0 6\nlasted", "get word", "get word\nquit", "lasted\nEND\n", at_peer=True),
    ),
    Stock(
        "redis-server",
        "epoll",
        "exec redis-server --port {port} --bind {home} --save '' --protected-mode no --dir {folder}",
        "exec redis-cli -h {home} -p {port} > {out}",
        serves=True,
        forever=True,
        text="OK\nlasted\nlasted\n",
        talk=Talk("set word lasted", "get word", "get word", "lasted\n", at_peer=True),
    ),
)
"""Interactive programs: lines sent before, during and after the sleep have to arrive in order."""

WAITERS = (
    waiter("asyncio", "epoll, level-triggered (asyncio)"),
    waiter("epoll-edge", "epoll, edge-triggered"),
    waiter("epoll-oneshot", "epoll, one-shot"),
    waiter("io_uring", "io_uring, a poll request"),
    waiter("sigio", "SIGIO"),
    waiter("timeout", "blocking reads with SO_RCVTIMEO"),
    waiter("threads", "many threads that block in read", 4),
)

STOCK = (*RECEIVERS, *SENDERS, *TALKERS, *WAITERS)
