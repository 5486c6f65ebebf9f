//! Real work leaves on a share what it leaves on a local file system.
//!
//! Each script runs twice: in a guest on the share, and here in a directory of a local file system. Then the listings
//! have to be equal, the share's as the guest and as the host see it: every name with its kind, mode, owner, group,
//! links, size, target, its time where the work has set one, and its contents' SHA-256. A script's output goes to the
//! file `out`, and is compared with the rest.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use postern_tests::guest::{Guest, Kernel};
use postern_tests::kind::{Kind, Range, to_guest};
use postern_tests::share::Server;
use tempfile::TempDir;

/// Fails at the first command that fails, and finds the same programs on both sides.
const SETTING: &str = "set -eu -o pipefail; umask 022
    export PATH=/usr/sbin:/usr/bin LC_ALL=C HOME=/tmp";

/// Times are shown if they are older than an hour, directories' link counts and sizes never.
const LISTING: &str = r"
    find . -mindepth 1 '(' -type d -printf '%P d %m %U:%G\n' ')' -o '(' -mmin +60 -printf '%P %y %m %U:%G %n %s %l %T@\n' ')' \
        -o -printf '%P %y %m %U:%G %n %s %l\n' | sort
    find . -type f -size +0 -print0 | sort -z | xargs -0r sha256sum";

/// What there is to work with.
const SOURCES: [&str; 2] = ["busybox.tar", "lua5.4.tar"];

/// Makes a test of a script for postern, and a slow one for virtiofsd, which proves the script.
macro_rules! work {
    ($($(#[$meta:meta])* $name:ident: $script:expr;)*) => {
        $($(#[$meta])* #[test] fn $name() { leaves_the_same(Kind::Mapped, $script); })*
        mod slow {
            use super::*;
            $(#[test] fn $name() { leaves_the_same(Kind::Virtiofsd, $script); })*
        }
    };
}

work! {
    a_source_tarball_unpacks: "tar xf busybox.tar";

    git_adds_clones_and_checks_thousands_of_files: r"
        tar xf busybox.tar
        cd busybox-*
        export GIT_AUTHOR_DATE='2001-01-01 00:00:00Z' GIT_COMMITTER_DATE='2001-01-01 00:00:00Z'
        git init -q .; git add .; git -c user.name=n -c user.email=e commit -qm all
        cd ..; git clone -q busybox-* clone; git -C clone fsck --full --strict
        git -C clone rev-parse HEAD; git -C clone status --porcelain
        rm -rf */.git";

    make_builds_a_c_program: r"
        tar xf lua5.4.tar; make -s -C lua-*/src generic CC='gcc -O0' 2>/dev/null; lua-*/src/lua -e 'print(6 * 7)'";

    sqlite_with_a_rollback_journal_keeps_its_rows: &sqlite("delete");
    sqlite_with_a_write_ahead_log_keeps_its_rows: &sqlite("wal");

    fio_finds_what_it_wrote: r"
        for engine in sync psync vsync mmap; do
            fio --name=$engine --filename=data --size=16m --bs=4k --rw=randrw --ioengine=$engine --verify=crc32c \
                --verify_state_save=0 --do_verify=1 --verify_fatal=1 >/tmp/fio || cat /tmp/fio
            rm data
        done
        fio --name=direct --filename=data --size=16m --bs=64k --rw=write --direct=1 --verify=crc32c \
            --verify_state_save=0 --verify_fatal=1 >/tmp/fio || cat /tmp/fio
        rm data";

    rsync_copies_a_tree_with_its_hard_links: r"
        tar xf busybox.tar
        mv busybox-* a; cp -al a/libbb a/linked; ln -s ../libbb a/linked/symbolic; setfattr -n user.a -v 1 a/Makefile
        rsync -aHAX a/ b/; touch -d @1000000000 a/Makefile; rm -r a/shell; touch -d @1500000000 a; rsync -aHAX --delete --itemize-changes a/ b/ | sort
        getfattr -n user.a b/Makefile; rm -r a";

    shared_mappings_write_through: r#"
        cat >m.c <<'END'
        #include <fcntl.h>
        #include <sys/mman.h>
        #include <unistd.h>
        int main(void) {
            unsigned size = 1 << 20, fd = open("mapped", O_RDWR | O_CREAT, 0644);
            ftruncate(fd, size);
            unsigned *word = mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
            for (unsigned i = 0; i < size / 4; i++) word[(i * 40503u) % (size / 4)] = i;
            unsigned fork_ = fork();
            for (unsigned i = 0; i < size / 4; i += 1024) word[i + !!fork_] += 1;
            return msync(word, size, MS_SYNC);
        }
END
        cc -o m m.c; ./m; sleep 1; rm m"#;

    eight_writers_at_once_lose_nothing: r"
        for w in 1 2 3 4 5 6 7 8; do
            (for i in $(seq 200); do echo writer $w line $i >>all; echo $i >>own.$w; done; head -c 4m /dev/zero | tr '\0' $w >big.$w) &
        done
        wait; sort -o all all";

    a_sparse_file_of_5_gib_keeps_its_holes: r#"
        truncate -s 5G sparse; for at in 0 4294967295 5368709119; do printf x | dd of=sparse bs=1 seek=$at conv=notrunc status=none; done
        stat -c %s sparse; [ $(stat -c %b sparse) -lt 1000 ] && echo sparse
        for at in 0 1 4294967294 4294967295 5368709119; do dd if=sparse bs=1 skip=$at count=1 status=none | od -An -c; done
        perl -e 'open F, "<sparse"; $p = 0; while (defined($d = sysseek(F, $p, 3))) { $p = sysseek(F, $d, 4); print $d >> 16, " ", $p >> 16, "\n" }'
        rm sparse"#;

    names_of_255_bytes_are_names: r"
        n=$(printf '%0255d' 7); mkdir $n; echo x >$n/$n; ln $n/$n ${n%7}8; ln -s $n/$n l; mv ${n%7}8 ${n%7}9; cat l
        (touch ${n}0 2>&1 || true) | sed 's/.*: //'";

    a_directory_of_20000_files_is_listed_whole: r"
        mkdir d; cd d; seq -f %.0f-name 20000 | xargs touch; ls | wc -l; ls -f | sort -u | wc -l
        seq -f %.0f-name 2 2 20000 | xargs rm; ls | sha256sum";

    a_path_of_100_levels_is_walked: r"
        for i in $(seq 100); do d=level-$i-xxxxxxxxxxxxxxxxxxxxxxxx; mkdir $d; cd $d; done
        echo deep >f; pwd -P | sed 's/^.*level-1-/level-1-/' | wc -c; cd /; cd - >/dev/null; cat f";

    unlinked_files_live_while_they_are_open: r"
        for i in 3 4 5 6 7 8 9; do eval exec $i'<>u$i'; rm u$i; echo content $i >&$i; done
        touch u3; ls; for i in 3 4 5 6 7 8 9; do cat /proc/self/fd/$i; stat -L -c '%h %s' /proc/self/fd/$i; done";

    files_move_while_another_process_reads_them: r"
        mkdir a b; for i in $(seq 100); do echo content $i >a/$i; done
        (for round in 1 2 3; do for i in $(seq 100); do mv a/$i b/$i; mv b/$i a/n; mv a/n a/$i; done; done; touch done) &
        until [ -e done ]; do for i in 1 50 100; do cat a/$i b/$i a/n 2>/dev/null; done; done >read || true
        wait; sort -u read | grep -cvxE 'content [0-9]+' || true; rm read";
}

/// Transactions, a rollback, and what is there after all.
fn sqlite(journal: &str) -> String {
    format!(
        r#"for i in 1 2 3 4 5; do
            sqlite3 db "PRAGMA journal_mode={journal}; CREATE TABLE IF NOT EXISTS t(n INTEGER PRIMARY KEY, s TEXT);
                WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 2000)
                    INSERT INTO t(s) SELECT hex(n * 7919) FROM c;
                BEGIN; DELETE FROM t; ROLLBACK; UPDATE t SET s = s || 'x' WHERE n % 3 = 0; DELETE FROM t WHERE n % 5 = 0;"
        done
        sqlite3 db 'PRAGMA integrity_check; SELECT count(*), sum(length(s)) FROM t'; sqlite3 db .dump | sha256sum; rm db*"#
    )
}

#[test]
fn what_the_host_renames_and_replaces_is_seen_whole() {
    let kind = Kind::Mapped;
    let share = served(kind);
    let dir = share.dir();
    let root = Some(kind.uids()[0].host);
    let write = |name: &str, text: String| {
        fs::write(dir.join(name), text).unwrap();
        chown(dir.join(name), root, root).unwrap();
    };
    let replace = |version: u32| {
        write("new", format!("version {version}\n").repeat(10_000));
        fs::rename(dir.join("new"), dir.join("file")).unwrap();
        fs::rename(dir.join("a"), dir.join("b")).unwrap();
        write("b/made", version.to_string());
        fs::rename(dir.join("b"), dir.join("a")).unwrap();
    };
    fs::create_dir(dir.join("a")).unwrap();
    chown(dir.join("a"), root, root).unwrap();
    replace(0);
    let mut guest = Guest::boot(Kernel::Uml, kind, &[("mnt", &share)]);
    let done = AtomicBool::new(false);
    let torn = thread::scope(|scope| {
        scope.spawn(|| (1..).take_while(|_| !done.load(Ordering::Relaxed)).for_each(replace));
        let torn = guest.ok(
            "cd /mnt; for i in $(seq 500); do cat file | uniq -c; ls a b >/dev/null 2>&1 || true; done | grep -cv '^ *10000 ' || true",
        );
        done.store(true, Ordering::Relaxed);
        torn
    });
    assert_eq!(torn, "0\n", "versions read that the host never wrote");
    thread::sleep(Duration::from_millis(1100)); // what the guest may remember by --cache=auto
    assert_eq!(in_guest(&mut guest, LISTING), as_guest(kind, &on_host(&dir, LISTING)));
}

/// Runs a script on both sides and compares what it leaves.
fn leaves_the_same(kind: Kind, script: &str) {
    let (share, local) = (served(kind), TempDir::new_in("/var/tmp").unwrap());
    let root = kind.uids()[0].host;
    for (source, (dir, owner)) in SOURCES.iter().flat_map(|s| [(s, (share.dir(), root)), (s, (local.path().into(), 0))])
    {
        fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/uml").join(source), dir.join(source)).unwrap();
        chown(dir.join(source), Some(owner), Some(owner)).unwrap();
    }
    let work = format!("{{ {script}\n}} >out 2>&1 || {{ cat out; exit 1; }}");
    let mut guest = Guest::boot(Kernel::Uml, kind, &[("mnt", &share)]);
    let start = Instant::now();
    in_guest(&mut guest, &work);
    println!("{:?} in the guest", start.elapsed());
    on_host(local.path(), &work);
    let expected = on_host(local.path(), LISTING);
    equal("the guest", &in_guest(&mut guest, LISTING), &expected);
    equal("the host", &as_guest(kind, &on_host(&share.dir(), LISTING)), &expected);
}

fn served(kind: Kind) -> Server {
    kind.setup().posix_acl().arg("--tag=mnt").start()
}

fn in_guest(guest: &mut Guest, script: &str) -> String {
    guest.ok(&format!(
        "cd /mnt\ncat >/tmp/script <<'END OF SCRIPT'\n{SETTING}\n{script}\nEND OF SCRIPT\n/usr/bin/bash /tmp/script"
    ))
}

fn on_host(dir: &Path, script: &str) -> String {
    let done = Command::new("bash").arg("-c").arg(format!("{SETTING}\n{script}")).current_dir(dir).output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(done.status.success(), "on the host:\n{script}\n{}{}", text(&done.stdout), text(&done.stderr));
    text(&done.stdout)
}

/// A listing of the host with the guest's ids.
fn as_guest(kind: Kind, listing: &str) -> String {
    let id = |map: &[Range], host: &str| Some(to_guest(map, host.parse().ok()?)?.to_string());
    let owners = |word: &str| {
        let (uid, gid) = word.split_once(':')?;
        Some(format!("{}:{}", id(&kind.uids(), uid)?, id(&kind.gids(), gid)?))
    };
    let line =
        |line: &str| line.split(' ').map(|w| owners(w).unwrap_or_else(|| w.into())).collect::<Vec<_>>().join(" ");
    listing.lines().map(|l| line(l) + "\n").collect()
}

fn equal(side: &str, is: &str, should: &str) {
    let (is, should): (HashSet<_>, HashSet<_>) = (is.lines().collect(), should.lines().collect());
    let few = |a: &HashSet<&str>, b: &HashSet<&str>| {
        a.difference(b).take(20).map(|line| format!("{line}\n")).collect::<String>()
    };
    assert!(is == should, "{side} sees\n{}instead of\n{}", few(&is, &should), few(&should, &is));
}
