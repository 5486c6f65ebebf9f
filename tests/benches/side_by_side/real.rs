//! Real work in a real guest: a User-Mode Linux with each server in turn, all begun anew for each round.
//!
//! Servers do what they do by default. The guest's caches are empty before each work, the host's are full. Programs come
//! from the same server for all. Guest and server are on one CPU, so that times tell what has to be done; and on those
//! that the kernel chooses, where most of the time CPUs that sleep are woken.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use postern_tests::Kind;
use postern_tests::guest::{Guest, Kernel, Outcome};
use postern_tests::share::Scratch;

use crate::contestant::{SERVERS, Server, setup};
use crate::report::{Aim, Columns, Row, Sample, table};
use crate::workload::Unit;
use crate::{Args, PLACES, cpu, tagged};

/// No work may take longer, and most of it at most [`MOST`].
const AIM: f64 = 1.05;
/// What is to be reached by so many.
const MOST: (f64, usize) = (0.9, 4);

/// What is done one after the other in a directory with `tree.tar` and the `.git` of what that contains, and `lua.tar`.
const WORKS: [(&str, &str); 6] = [
    ("unpack the tree", "mkdir tree && mv git tree/.git && tar xf tree.tar -C tree --strip-components=1"),
    ("git status", r#"test -z "$(git -C tree status --porcelain)""#),
    ("find", "test $(find tree -type f -size +100k | wc -l) -gt 0"),
    ("grep -r", "test $(grep -r postern_is_not_in_there tree | wc -l) = 0"),
    (
        "build a C program",
        "mkdir lua && tar xf lua.tar -C lua --strip-components=1 && make -s -C lua/src generic CC='gcc -O0'",
    ),
    ("rm -rf", "rm -rf tree"),
];

/// A table for each tree on one CPU, and on all.
pub fn run(args: &Args, tell: &mut impl FnMut(String)) {
    for tree in &args.tree {
        let name = tree.file_stem().unwrap_or_default().display();
        for (where_to, cpu) in [("one CPU", cpu::ALLOWED.first().copied()), ("any CPU", None)] {
            let title = format!("real work in a guest: {name}, tmpfs, User-Mode Linux, {where_to}");
            if title.contains(&args.table) {
                cpu::stay(cpu);
                tell(compare(&title, tree, args));
            }
        }
    }
}

fn compare(title: &str, tree: &Path, args: &Args) -> String {
    let servers: Vec<_> = SERVERS
        .into_iter()
        .filter_map(|server| match server {
            Server::Real(name, kind, own) => Some((name, kind, own)),
            Server::Floor => None,
        })
        .collect();
    let servers = if args.alone { &servers[..1] } else { &servers };
    let aim = Aim { time: Some(AIM), cpu: None };
    let mut rows = WORKS.map(|(name, _)| Row::new(name, Unit::Seconds, aim, servers.len()));
    let sources = Sources::prepare(tree);
    for round in 0..args.guest_rounds {
        for turn in 0..servers.len() {
            let who = (round + turn) % servers.len();
            let (name, kind, own) = servers[who];
            for (row, sample) in rows.iter_mut().zip(work(name, kind, own, &sources, args)) {
                row.samples[who].push(sample);
            }
        }
    }
    let columns = Columns { servers: servers.iter().map(|(name, ..)| *name).collect(), floor: false };
    let good = rows.iter().filter(|row| row.ratio(servers.len()).is_some_and(|ratio| ratio <= MOST.0)).count();
    let (most, wanted) = MOST;
    let table = table(title, &columns, &rows);
    format!("{table}\n{good} of {} are at most {most:.2}; the aim is {wanted}.\n", rows.len())
}

/// Of the share, and where the guest has it.
const TAG: &str = "mnt";

/// What there is to work with.
struct Sources {
    scratch: Scratch,
    tree: PathBuf,
}

impl Sources {
    /// Makes the repository of the tree: without the contents of its files, which status has no need of, and such that
    /// files are known by their sizes and times.
    fn prepare(tree: &Path) -> Self {
        let scratch = Scratch::below(PLACES[0].1, Kind::Host, false);
        let script = r#"
            tar xf "$0" --strip-components=1
            git init -q
            for setting in core.bigFileThreshold=1 core.compression=1 core.checkStat=minimal core.trustctime=false \
                gc.auto=0 user.name=n user.email=e; do git config "${setting%=*}" "${setting#*=}"; done
            git add -A -f && git commit -qm all
            rm -rf .git/objects/pack/*
            find . -mindepth 1 -maxdepth 1 ! -name .git -exec rm -rf {} +"#;
        let status = Command::new("sh").args(["-ec", script]).arg(tree).current_dir(scratch.path("share")).status();
        assert!(status.expect("sh").success(), "{} makes no repository", tree.display());
        Self { scratch, tree: tree.into() }
    }

    /// Gives a share's root all there is.
    fn plant(&self, share: &Path, kind: Kind) {
        let lua = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/uml/lua5.4.tar");
        let owner = kind.uids()[0].host.to_string();
        let script = r#"cp -a "$1/.git" git; cp "$2" tree.tar; cp "$3" lua.tar; chown -R "$0:$0" ."#;
        let sources = [&self.scratch.path("share"), &self.tree, &lua];
        let status = Command::new("sh").args(["-ec", script, &owner]).args(sources).current_dir(share).status();
        assert!(status.expect("sh").success(), "{} does not fit", self.tree.display());
    }
}

/// Does all work once, up to what the server does not bring about.
fn work(name: &str, kind: Kind, own: &[&str], sources: &Sources, args: &Args) -> Vec<Sample> {
    let setup = setup(kind, own, PLACES[0].1, args).plain();
    let knows_tag = kind != Kind::CVirtiofsd;
    let server = if knows_tag { setup.tag(TAG) } else { setup }.start();
    sources.plant(&server.dir(), kind);
    let mut socket = server.socket().to_owned();
    if !knows_tag {
        let own = socket.with_extension("tagged");
        tagged::listen(&own, &socket, TAG);
        socket = own;
    }
    let mut guest = Guest::boot_at(Kernel::Uml, Kind::Mapped, &[(TAG, &socket)]);
    let processes = cpu::family(server.child.id());
    let mut samples = Vec::new();
    for (what, script) in WORKS {
        guest.ok("sync; echo 3 >/proc/sys/vm/drop_caches");
        let script = format!("cd /{TAG}; PATH=/usr/bin HOME=/tmp LC_ALL=C /usr/bin/bash -e <<'END'\n{script}\nEND");
        let (start, spent) = (Instant::now(), cpu::spent(&processes));
        let Outcome { status, text } = guest.run(&script);
        if status != 0 {
            println!("{name} does not {what}: {}", text.lines().last().unwrap_or_default());
            break;
        }
        samples
            .push(Sample { time: start.elapsed().as_secs_f64(), cpu: (cpu::spent(&processes) - spent).as_secs_f64() });
    }
    samples.resize(WORKS.len(), Sample::NEVER);
    samples
}
