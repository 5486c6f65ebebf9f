//! QEMU's words for a shared directory, `-fsdev` and its keys: people who come from there are told ours. postern-9p(7)

use std::ffi::OsString;

use postern_policy::fatal::Fatal;

/// What to say in place of a key of QEMU's.
#[derive(Clone, Copy)]
enum Instead {
    /// This option, with the same value.
    Ours(&'static str),
    /// This option, where the key is on.
    Flag(&'static str),
    /// Nothing: it names a part of QEMU's own command line.
    Nothing,
    /// No option: this sentence.
    Sentence(&'static str),
}

use Instead::{Flag, Nothing, Ours, Sentence};

/// The drivers of `-fsdev` and who does their work here.
const DRIVERS: &[(&str, Instead)] = &[
    ("local", Ours("9p")),
    ("proxy", Ours("proxy")),
    ("handle", Sentence("QEMU itself dropped it in 4.0; postern-server 9p needs no file handles")),
    ("synth", Sentence("it is for tests of QEMU itself and shares nothing")),
];

/// The keys of `-fsdev` and `-virtfs`; one with a point at its end stands for all that begin so.
const KEYS: &[(&str, Instead)] = &[
    ("path", Ours("--shared-dir")),
    ("security_model", Ours("--security-model")),
    ("fmode", Ours("--fmode")),
    ("dmode", Ours("--dmode")),
    ("multidevs", Ours("--multidevs")),
    ("writeout", Ours("--writeout")),
    ("readonly", Flag("--readonly")),
    ("mount_tag", Ours("--tag")),
    ("socket", Ours("--socket-path")),
    ("sock_fd", Sentence("QEMU keeps one end of a socketpair, --fd=N here is the other")),
    ("max_xattr", Sentence("64 MiB of attribute values can be open at once, always")),
    (
        "throttling.",
        Sentence(
            "rates are for the control group of both processes to limit, see io.max; requests that change something or open files have --max-rate",
        ),
    ),
    ("id", Nothing),
];

/// With the proxy protocol these are QEMU's own work.
const LEFT_TO_QEMU: &[&str] = &["writeout", "mount_tag"];

/// Options of QEMU's that take keys.
const LISTS: &[&str] = &["fsdev", "virtfs"];

/// What to say instead of the first word of QEMU's on a command line, given without the program's name; `None` if it
/// has none.
pub fn refuse(words: impl IntoIterator<Item = OsString>) -> Option<Fatal> {
    let words: Vec<String> = words.into_iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let frontend = words.first()?;
    let served = frontend == "proxy";
    if !served && DRIVERS.iter().any(|(driver, _)| driver == frontend) {
        return Some(Answer::default().driver(frontend).refusal(frontend));
    }
    words.iter().enumerate().find_map(|(at, word)| {
        let option = word.strip_prefix("--").or_else(|| word.strip_prefix('-'))?;
        let (key, value) = option.split_once('=').unzip();
        let key = key.unwrap_or(option);
        if LISTS.contains(&key) {
            let list = value.or_else(|| words.get(at.saturating_add(1)).map(String::as_str)).unwrap_or_default();
            return Some(Answer::default().list(list).refusal(word));
        }
        let instead = instead_of(key).filter(|instead| !instead.is(key) || (served && LEFT_TO_QEMU.contains(&key)))?;
        Some(Answer::default().key(key, value, instead, served).refusal(word))
    })
}

fn instead_of(key: &str) -> Option<Instead> {
    let row = KEYS.iter().find(|(known, _)| *known == key || (known.ends_with('.') && key.starts_with(known)));
    row.map(|(_, instead)| *instead)
}

impl Instead {
    /// It is this very option of ours.
    fn is(self, key: &str) -> bool {
        matches!(self, Ours(name) | Flag(name) if name.strip_prefix("--") == Some(key))
    }
}

/// Our words for QEMU's, and what there are no words for.
#[derive(Default)]
struct Answer {
    words: Vec<String>,
    remarks: Vec<String>,
}

impl Answer {
    fn remark(mut self, what: &str, text: &str) -> Self {
        self.remarks.push(format!("{what}: {text}"));
        self
    }

    fn driver(mut self, driver: &str) -> Self {
        match DRIVERS.iter().find(|(known, _)| *known == driver) {
            Some((_, Ours(frontend))) => {
                self.words.push(format!("postern-server {frontend}"));
                self
            }
            Some((_, Sentence(text))) => self.remark(driver, text),
            _ if driver.is_empty() => self,
            _ => self.remark(driver, "QEMU has no such driver"),
        }
    }

    /// `DRIVER,KEY=VALUE,...`, commas in values doubled.
    fn list(self, list: &str) -> Self {
        let list = list.replace(",,", "\0");
        let mut parts = list.split(',').filter(|part| !part.is_empty());
        let driver = parts.next().unwrap_or_default();
        let proxy = driver == "proxy";
        parts.fold(self.driver(driver), |answer, part| {
            let part = part.replace('\0', ",");
            let (key, value) = part.split_once('=').unzip();
            let key = key.unwrap_or(&part);
            match instead_of(key) {
                Some(instead) => answer.key(key, value, instead, proxy),
                None => answer.remark(key, "QEMU has no such key"),
            }
        })
    }

    fn key(mut self, key: &str, value: Option<&str>, instead: Instead, proxy: bool) -> Self {
        match instead {
            _ if proxy && LEFT_TO_QEMU.contains(&key) => {
                return self.remark(key, "QEMU does that itself, leave it on QEMU's command line");
            }
            Ours(name) => self.words.push(value.map_or(name.into(), |value| format!("{name}={}", quoted(value)))),
            Flag(name) if value.is_none_or(|value| ["on", "yes", "true"].contains(&value)) => {
                self.words.push(name.into());
            }
            Flag(_) | Nothing => {}
            Sentence(text) => return self.remark(key, text),
        }
        self
    }

    fn refusal(self, word: &str) -> Fatal {
        let words = if self.words.is_empty() { None } else { Some(format!("say {}", self.words.join(" "))) };
        let all: Vec<_> = words.into_iter().chain(self.remarks).collect();
        let what = if all.is_empty() { "leave it out".into() } else { all.join("; ") };
        Fatal::new(format!("take {word}"), "it is a word of QEMU's").hint(&format!("{what}; see postern-9p(7)"))
    }
}

/// As a shell takes it for one word.
fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,".contains(c);
    if value.chars().all(plain) { value.into() } else { format!("'{}'", value.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> Option<String> {
        refuse(line.split(' ').map(Into::into)).map(|fatal| fatal.to_string())
    }

    fn says(line: &str, what: &str) {
        let said = said(line).expect("refused");
        assert_eq!(said.split_once("QEMU's; ").unwrap().1, format!("{what}; see postern-9p(7)"));
    }

    #[test]
    fn a_whole_fsdev_is_told_in_our_words() {
        says(
            "9p -fsdev local,id=f,path=/srv/a,,b,security_model=mapped-xattr,fmode=0640,readonly=on",
            "say postern-server 9p --shared-dir=/srv/a,b --security-model=mapped-xattr --fmode=0640 --readonly",
        );
        says("9p --virtfs=local,path=/x,mount_tag=t,readonly=off", "say postern-server 9p --shared-dir=/x --tag=t");
        says("virtiofs -fsdev", "leave it out");
        says("9p -fsdev nfs", "nfs: QEMU has no such driver");
    }

    #[test]
    fn what_has_no_word_of_ours_is_told_why() {
        says(
            "9p --throttling.bps-total=5",
            "throttling.bps-total: rates are for the control group of both processes to limit, see io.max; requests that change something or open files have --max-rate",
        );
        says(
            "9p -fsdev handle,path=/x",
            "say --shared-dir=/x; handle: QEMU itself dropped it in 4.0; postern-server 9p needs no file handles",
        );
        says("handle", "handle: QEMU itself dropped it in 4.0; postern-server 9p needs no file handles");
        says("9p -fsdev local,colour=blue", "say postern-server 9p; colour: QEMU has no such key");
    }

    #[test]
    fn qemus_own_work_is_left_to_it() {
        let its_own = "writeout: QEMU does that itself, leave it on QEMU's command line";
        says("proxy --writeout=immediate", its_own);
        says("9p -fsdev proxy,writeout=immediate", &format!("say postern-server proxy; {its_own}"));
        assert!(said("9p --writeout=immediate").is_none());
    }

    #[test]
    fn one_key_is_told_as_one_option() {
        says("9p --security_model=none", "say --security-model=none");
        says("9p --path /x", "say --shared-dir");
        says("9p --mount_tag=a$b", "say --tag='a$b'");
        says("9p --id=f", "leave it out");
    }

    // postern-9p(7) is the place where people look QEMU's words up
    #[test]
    fn the_manual_has_every_word() {
        let page = include_str!("../../man/postern-9p.7");
        for (word, _) in DRIVERS.iter().chain(KEYS) {
            let cell = format!(".It Cm {}", word.trim_end_matches('.'));
            assert!(page.lines().any(|line| line.starts_with(&cell)), "{cell}");
        }
    }

    #[test]
    fn our_own_words_are_let_through() {
        for line in ["9p --shared-dir=/x --readonly --tag path", "proxy --fd=3 --multidevs=remap", "--help", "virtiofs"]
        {
            assert_eq!(said(line), None, "{line}");
        }
    }
}
