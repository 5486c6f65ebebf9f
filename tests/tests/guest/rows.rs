//! What a guest can do on any local file system: a script for the guest, in a directory of its own, what it prints, and
//! what the host then finds there.

/// One behaviour.
pub struct Row {
    /// What holds.
    pub rule: &'static str,
    /// For the guest's root, in the row's directory.
    pub script: &'static str,
    /// What it prints.
    pub prints: &'static str,
    /// What the host then finds there: one line for each file, see `found`. Ids are the guest's.
    pub leaves: &'static str,
}

const fn row(rule: &'static str, script: &'static str, prints: &'static str, leaves: &'static str) -> Row {
    Row { rule, script, prints, leaves }
}

/// What any kernel can do.
pub const ANY_KERNEL: &[Row] = &[
    // Contents
    row(
        "what is written is read back",
        "echo hello >f; cat f",
        "hello",
        r#"f 0:0 644 "hello\n""#,
    ),
    row(
        "appending adds at the end",
        "printf a >f; printf b >>f; printf c >>f; cat f",
        "abc",
        r#"f 0:0 644 "abc""#,
    ),
    row(
        "a file cut short and made longer ends in zeros",
        "printf 123456 >f; truncate -s 3 f; truncate -s 5 f; od -An -c f",
        r"   1   2   3  \0  \0",
        r#"f 0:0 644 "123\0\0""#,
    ),
    row(
        "opening with O_TRUNC empties a file",
        "echo long >f; : >f; stat -c %s f",
        "0",
        r#"f 0:0 644 """#,
    ),
    row(
        "an exclusive creation refuses what exists",
        "echo one >f; (set -C; echo two >f) 2>/dev/null || echo refused; cat f",
        "refused\none",
        r#"f 0:0 644 "one\n""#,
    ),
    row(
        "a megabyte survives the way there and back, direct and cached",
        "dd if=/dev/urandom of=/tmp/in bs=1M count=1 2>/dev/null
         dd if=/tmp/in of=f bs=64k oflag=direct 2>/dev/null
         cmp /tmp/in f; dd if=f bs=128k iflag=direct 2>/dev/null | cmp - /tmp/in; stat -c %s f",
        "1048576",
        "f 0:0 644 1048576 bytes",
    ),
    row(
        "a hole takes no space and is found by SEEK_DATA and SEEK_HOLE",
        r#"truncate -s 1G f; printf x | dd of=f bs=1 seek=512M conv=notrunc 2>/dev/null
         perl -e 'open F, "<f"; print sysseek(F, 0, 3) >= 2**29 - 65536, " ", sysseek(F, 0, 4) + 0, "\n"'
         [ "$(du -k f | cut -f1)" -lt 1024 ] && echo small"#,
        "1 0\nsmall",
        "f 0:0 644 1073741824 bytes",
    ),
    row(
        "fallocate allots, extends and punches",
        "fallocate -l 1M f; stat -c %s f; [ $(stat -c %b f) -ge 2048 ] && echo allotted
         /usr/bin/fallocate -p -o 0 -l 1M f; stat -c '%s %b' f",
        "1048576\nallotted\n1048576 0",
        "f 0:0 644 1048576 bytes",
    ),
    row(
        "a copy made by copy_file_range is equal",
        "seq 100000 >a; /usr/bin/cp a b; cmp a b && stat -c %s b",
        "588895",
        "a 0:0 644 588895 bytes\nb 0:0 644 588895 bytes",
    ),
    row(
        "a file written through shared mappings holds what was written",
        "fio --name=m --filename=f --ioengine=mmap --rw=randwrite --bs=4k --size=1m --verify=crc32c --verify_state_save=0 >/tmp/o 2>&1 || cat /tmp/o
         stat -c %s f",
        "1048576",
        "f 0:0 644 1048576 bytes",
    ),
    row(
        "appends of four processes at once are all there",
        "for i in 1 2 3 4; do (for j in $(seq 50); do echo $i >>f; done) & done; wait; sort f | uniq -c | tr -s ' '",
        " 50 1\n 50 2\n 50 3\n 50 4",
        "f 0:0 644 400 bytes",
    ),
    row(
        "an unlinked file lives while it is open",
        "exec 3<>f; rm f; echo alive >&3; stat -L -c %h /proc/self/fd/3; cat /proc/self/fd/3; truncate -s 2 /proc/self/fd/3
         stat -L -c %s /proc/self/fd/3; exec 3>&-; ls",
        "0\nalive\n2",
        "",
    ),
    row(
        "sync in all its forms succeeds",
        "echo x >f; sync f; sync -d f; sync -f .; sync",
        "",
        r#"f 0:0 644 "x\n""#,
    ),
    // Names
    row(
        "directories are made and removed",
        "mkdir -p a/b/c; rmdir a/b/c; rmdir a 2>/dev/null || echo full; find . | sort",
        "full\n.\n./a\n./a/b",
        "a 0:0 755 directory\na/b 0:0 755 directory",
    ),
    row(
        "rename replaces the target",
        "echo new >a; echo old >b; mv a b; cat b; ls",
        "new\nb",
        r#"b 0:0 644 "new\n""#,
    ),
    row(
        "renameat2 keeps the target, exchanges, and leaves a whiteout when told so",
        r#"r() { perl -e 'print syscall(316, -100, $ARGV[0], -100, $ARGV[1], $ARGV[2] + 0), " ", $!, "\n"' "$@"; }
         echo 1 >a; echo 2 >b; r a b 1; r a b 2; cat a; r a c 4; stat -c '%F %t:%T' a; cat c"#,
        "-1 File exists\n0 \n2\n0 \ncharacter special file 0:0\n2",
        "a 0:0 0 device 0\nb 0:0 644 \"1\\n\"\nc 0:0 644 \"2\\n\"",
    ),
    row(
        "a directory moves with all below it, and not into itself",
        "mkdir -p a/b; echo x >a/b/f; mkdir c; mv a c/d; cat c/d/b/f; perl -e 'rename(\"c\", \"c/d/e\") or print \"$!\\n\"'",
        "x\nInvalid argument",
        "c 0:0 755 directory\nc/d 0:0 755 directory\nc/d/b 0:0 755 directory\nc/d/b/f 0:0 644 \"x\\n\"",
    ),
    row(
        "symbolic links say what they were told and lead on within the guest",
        "ln -s /etc/passwd l; readlink l; head -c 4 l; echo; ln -s nowhere d; cat d 2>/dev/null || echo dangling; chown -h alice l",
        "/etc/passwd\nroot\ndangling",
        "d 0:0 777 -> nowhere\nl 1000:0 777 -> /etc/passwd",
    ),
    row(
        "hard links are one file",
        "echo x >a; ln a b; echo y >>b; cat a; stat -c %h a; [ a -ef b ] && rm a; stat -c %h b",
        "x\ny\n2\n1",
        r#"b 0:0 644 "x\ny\n""#,
    ),
    row(
        "names may hold anything but a slash, up to 255 bytes",
        r#"n=$(printf '%255s' | tr ' ' n); touch "$n" "${n}n" 2>&1 | sed 's/.*: //'
         touch 'a b' "$(printf 'x\ny')" 'é"\*' -- -r; printf %s * | wc -c; rm "$n""#,
        "File name too long\n268",
        "-r 0:0 644 \"\"\na b 0:0 644 \"\"\nx\ny 0:0 644 \"\"\né\"\\* 0:0 644 \"\"",
    ),
    row(
        "a large directory is listed whole, once each",
        "seq 1000 | xargs touch; ls | wc -l; ls | sort -u | wc -l; seq 1000 | xargs rm; ls | wc -l",
        "1000\n1000\n0",
        "",
    ),
    row(
        "tar packs and unpacks a tree unchanged",
        "mkdir -p a/b; echo x >a/b/f; ln -s b/f a/l; ln a/b/f a/h; chmod 640 a/b/f; chown alice:staff a/b/f; touch -d @1000000000 a/b/f
         mkdir t; /usr/bin/tar cf - a | /usr/bin/tar xpf - -C t --warning=no-timestamp; list() { /usr/bin/find . -printf '%P %y %m %U:%G %n %s %l %T@\\n' | grep ' f ' | sort; }
         cd a; list >/tmp/1; cd ../t/a; list >/tmp/2; cmp /tmp/1 /tmp/2 && cat /tmp/2; cd ../..; rm -r t a",
        "b/f f 640 1000:2000 2 2  1000000000.0000000000\nh f 640 1000:2000 2 2  1000000000.0000000000",
        "",
    ),
    // Attributes
    row(
        "chmod sets every bit of the mode",
        "touch f; mkdir d; chmod 6755 f; chmod 3771 d; stat -c %a f d",
        "6755\n3771",
        "d 0:0 3771 directory\nf 0:0 6755 \"\"",
    ),
    row(
        "root gives files away, others may not",
        "touch f g; chown alice:staff f; stat -c %U:%G f; by alice chown bob f 2>&1 | sed 's/.*: //'; chown 1001 g",
        "alice:staff\nOperation not permitted",
        "f 1000:2000 644 \"\"\ng 1001:0 644 \"\"",
    ),
    row(
        "times are kept to the nanosecond",
        "/usr/bin/touch -d '2001-02-03 04:05:06.123456789 UTC' f; /usr/bin/stat -c %.9Y f; touch -a -d @5 f; /usr/bin/stat -c '%X %.9Y' f",
        "981173106.123456789\n5 981173106.123456789",
        "f 0:0 644 \"\"",
    ),
    row(
        "writing moves the modification time",
        "touch -d @5 f; echo x >>f; [ $(stat -c %Y f) -gt 1000000 ] && echo now",
        "now",
        "f 0:0 644 \"x\\n\"",
    ),
    row(
        "extended attributes are set, listed, read and removed",
        "touch f; setfattr -n user.a -v 1 f; setfattr -n user.b -v 2 f; setfattr -n user.a -v 3 f; getfattr -d f | sort
         setfattr -x user.a f; getfattr -n user.a f 2>&1 | sed 's/.*: //'; setfattr -x user.b f",
        "\n# file: f\nuser.a=\"3\"\nuser.b=\"2\"\nNo such attribute",
        "f 0:0 644 \"\"",
    ),
    row(
        "an access control list lets in whom it names",
        "echo secret >f; chmod 600 f; by bob cat f 2>&1 | sed 's/.*: //'; setfacl -m u:bob:r f; by bob cat f
         getfacl -c f; setfacl -b f; chmod 644 f",
        "Permission denied\nsecret\nuser::rw-\nuser:bob:r--\ngroup::---\nmask::r--\nother::---\n",
        "f 0:0 644 \"secret\\n\"",
    ),
    row(
        "a default access control list is inherited and stands in for the umask",
        "mkdir d; setfacl -d -m u:bob:rwx d; umask 077; echo x >d/f; mkdir d/d; getfacl -c d/f | grep -v '^$'; getfacl -cd d/d | head -2",
        "user::rw-\nuser:bob:rwx\t#effective:rw-\ngroup::r-x\t#effective:r--\nmask::rw-\nother::r--\nuser::rwx\nuser:bob:rwx",
        "d 0:0 755 directory\nd/d 0:0 775 directory\nd/f 0:0 664 \"x\\n\"",
    ),
    // Users
    row(
        "a new file is its creator's, with the umask taken off",
        "chmod 1777 .; by alice 'umask 027; echo x >f; mkdir d; ln -s f l; mkfifo p'; stat -c '%n %U:%G %a' d f l p",
        "d alice:alice 750\nf alice:alice 640\nl alice:alice 777\np alice:alice 640",
        "d 1000:1000 750 directory\nf 1000:1000 640 \"x\\n\"\nl 1000:1000 777 -> f\np 1000:1000 640 fifo",
    ),
    row(
        "what a user may not, he may not",
        "mkdir -m 700 d; echo x >d/f; echo y >f; chmod 600 f; for c in 'cat d/f' 'ls d' 'cat f' 'touch g' 'rm f' 'touch -d @1 f'; do
         by alice $c 2>&1 | sed 's/.*: //'; done",
        "Permission denied\nPermission denied\nPermission denied\nPermission denied\nPermission denied\nOperation not permitted",
        "d 0:0 700 directory\nd/f 0:0 644 \"x\\n\"\nf 0:0 600 \"y\\n\"",
    ),
    row(
        "a supplementary group opens a directory that belongs to it",
        "mkdir -m 2770 d; chgrp staff d; by alice 'echo x >d/f; mkdir d/d'; by bob touch d/g 2>&1 | sed 's/.*: //'",
        "Permission denied",
        "d 0:2000 2770 directory\nd/d 1000:2000 2755 directory\nd/f 1000:2000 644 \"x\\n\"",
    ),
    row(
        "in a sticky directory only the owner removes",
        "chmod 1777 .; by alice touch f; by bob rm -f f 2>&1 | sed 's/.*: //'; by alice rm f",
        "Operation not permitted",
        "",
    ),
    row(
        "set-id bits fall when another writes",
        "touch f; chmod 6777 f; by bob 'echo x >>f'; stat -c %a f; chmod 6777 f; by bob truncate -s 0 f; stat -c %a f
         chmod 6755 f; chown alice f; stat -c %a f",
        "777\n777\n755",
        "f 1000:0 755 \"\"",
    ),
    row(
        "a program runs from the share",
        "cp /usr/bin/id ./me; by alice ./me -u; rm me",
        "1000",
        "",
    ),
    row(
        "a file of an id that is not mapped is nobody's, and nobody gives one away",
        "stat -c %u:%g ../foreign; chown 0 ../foreign 2>&1 | sed 's/.*: //'; cat ../foreign
         (echo >../foreign) 2>&1 | sed 's/.*: //'; touch f; chown 70000 f 2>&1 | sed 's/.*: //'",
        "65534:65534\nOperation not permitted\nheldPermission denied\nInvalid argument",
        r#"f 0:0 644 """#,
    ),
    row(
        "a share that is read-only stays as it is",
        "cd /kept; for c in 'touch x' 'mkdir x' 'mv f g' 'ln -s x x' 'rm f' 'chmod 0 f' 'truncate -s 0 f' 'touch f'; do
         $c 2>&1 | sed 's/.*: //'; done | uniq -c | tr -s ' '; cat f",
        " 8 Read-only file system\nkept",
        "",
    ),
    // Special files and locks
    row(
        "a fifo carries data within the guest",
        "mkfifo p; echo through >p & cat p; wait",
        "through",
        "p 0:0 644 fifo",
    ),
    row(
        "a socket is bound and found",
        r#"perl -e 'use Socket; socket(S, AF_UNIX, SOCK_STREAM, 0); bind(S, sockaddr_un("s")) or print $!'; stat -c %F s"#,
        "socket",
        "s 0:0 755 socket",
    ),
    row(
        "a device node is refused",
        "mknod d c 1 3 2>&1 | sed 's/.*: //'",
        "Operation not permitted",
        "",
    ),
    row(
        "flock holds between the guest's own processes",
        "touch f; flock f -c 'flock -n f true || echo held'; flock -n f echo free",
        "held\nfree",
        "f 0:0 644 \"\"",
    ),
];

/// What the kernel's own file system client can do since 6.2 and 6.6.
pub const NEW_KERNEL: &[Row] = &[
    row(
        "O_TMPFILE makes a file without a name, which a link names",
        r#"perl -e 'sysopen(F, ".", 020200002) or die $!; syswrite F, "x"; print((stat F)[3], "\n");
           my ($from, $to) = ("/proc/self/fd/" . fileno(F), "f"); syscall(265, -100, $from, -100, $to, 0x400)'; cat f"#,
        "0\nx",
        "f 0:0 644 \"x\"",
    ),
    row(
        "chattr sets an inode's flags",
        "touch f; /usr/bin/chattr +d f; /usr/bin/lsattr f | cut -d' ' -f1 | tr -d -; /usr/bin/chattr -d f",
        "de",
        "f 0:0 644 \"\"",
    ),
    row(
        "the time of birth is told",
        "touch -d @5 f; [ $(/usr/bin/stat -c %W f) -gt 1000000 ] && echo born",
        "born",
        "f 0:0 644 \"\"",
    ),
];
