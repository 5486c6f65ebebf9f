//! seccomp: the list of system calls a process may make, with their arguments pinned. seccomp(2)
//!
//! A list is a table of [`Call`]s, each with its reason; several rows of one call are alternatives. Whatever no row
//! allows ends the process. A foreign architecture's calls end it too.
//!
//! The kernel remembers calls that are allowed whatever their arguments, and runs no list for them again; for others it
//! runs all lists of a process, of which a helper has three. So what requests call most pins nothing unless the pin
//! keeps something out. To pin the descriptor of a directory does not: whatever its number, an absolute path leads to
//! the same.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::str::FromStr;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Width, SeccompCmpOp as Op, SeccompCondition, SeccompFilter,
    SeccompRule,
};
use syscalls::Sysno;

use crate::fatal::Fatal;

/// Most arguments that one row pins.
const PINS: usize = 4;

/// One row: a system call that may be made if all its pinned arguments are as said.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Its number on this architecture.
    pub number: libc::c_long,
    /// What it is for.
    pub why: &'static str,
    pins: [Option<Pin>; PINS],
}

/// What an argument has to be. The low 32 bits are compared, which is all the kernel takes of an `int`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Pin {
    argument: u8,
    test: Test,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Test {
    Is(u32),
    IsDescriptor,
    Masked { mask: u32, value: u32 },
    IsWide(u64),
}

/// A C `int` as the kernel compares it, for the tables.
pub const fn bits(value: libc::c_int) -> u32 {
    u32::from_ne_bytes(value.to_ne_bytes())
}

/// A system call as people name it: `ioctl (16)`.
pub fn named(number: libc::c_long) -> String {
    let known = usize::try_from(number).ok().and_then(Sysno::new);
    known.map_or_else(|| format!("a call without a name ({number})"), |call| format!("{} ({number})", call.name()))
}

impl Call {
    /// With whatever arguments.
    pub const fn any(number: libc::c_long, why: &'static str) -> Self {
        Self { number, why, pins: [None; PINS] }
    }

    /// The first argument is a descriptor: 0 to `i32::MAX`, so never AT_FDCWD.
    pub const fn at(number: libc::c_long, why: &'static str) -> Self {
        Self::any(number, why).pin(0, Test::IsDescriptor)
    }

    /// Argument `argument`, counted from 0, is `value`.
    #[must_use]
    pub const fn eq(self, argument: u8, value: u32) -> Self {
        self.pin(argument, Test::Is(value))
    }

    /// Argument `argument` is 0 in all its 64 bits, as a null pointer is.
    #[must_use]
    pub const fn null(self, argument: u8) -> Self {
        self.pin(argument, Test::IsWide(0))
    }

    /// Of the bits in `mask`, argument `argument` has those of `value`.
    #[must_use]
    pub const fn masked(self, argument: u8, mask: u32, value: u32) -> Self {
        self.pin(argument, Test::Masked { mask, value })
    }

    /// Argument `argument` has no bits but those of `allowed`.
    #[must_use]
    pub const fn only(self, argument: u8, allowed: u32) -> Self {
        self.masked(argument, !allowed, 0)
    }

    #[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "evaluated at compile time, in tables")]
    const fn pin(mut self, argument: u8, test: Test) -> Self {
        let mut free = 0;
        while self.pins[free].is_some() {
            free += 1;
        }
        self.pins[free] = Some(Pin { argument, test });
        self
    }

    fn pins(&self) -> impl Iterator<Item = &Pin> {
        self.pins.iter().flatten()
    }
}

/// `openat (257): argument 0 is a descriptor, argument 2 is 0x2a0000`
impl Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&named(self.number))?;
        self.pins()
            .zip([": "].into_iter().chain(std::iter::repeat(", ")))
            .try_for_each(|(pin, before)| write!(f, "{before}{pin}"))
    }
}

impl Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "argument {} ", self.argument)?;
        match self.test {
            Test::Is(value) => write!(f, "is {value:#x}"),
            Test::IsDescriptor => f.write_str("is a descriptor"),
            Test::Masked { mask, value: 0 } => write!(f, "has no bits but {:#x}", !mask),
            Test::Masked { mask, value } => write!(f, "has of {mask:#x} the bits {value:#x}"),
            Test::IsWide(0) => f.write_str("is null"),
            Test::IsWide(value) => write!(f, "is {value:#x}"),
        }
    }
}

impl Pin {
    fn condition(self) -> seccompiler::Result<SeccompCondition> {
        let (width, op, value) = match self.test {
            Test::Is(value) => (Width::Dword, Op::Eq, u64::from(value)),
            Test::IsDescriptor => (Width::Dword, Op::Le, u64::from(bits(i32::MAX))),
            Test::Masked { mask, value } => (Width::Dword, Op::MaskedEq(u64::from(mask)), u64::from(value)),
            Test::IsWide(value) => (Width::Qword, Op::Eq, value),
        };
        Ok(SeccompCondition::new(self.argument, width, op, value)?)
    }
}

/// What becomes of a process that makes a call which is not on its list.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// It is killed.
    #[default]
    Kill,
    /// The kernel logs the call and lets it through.
    Log,
    /// Nothing: there is no list.
    None,
}

impl FromStr for Mode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "kill" => Ok(Self::Kill),
            "log" => Ok(Self::Log),
            "none" => Ok(Self::None),
            _ => Err("must be kill, log or none"),
        }
    }
}

impl Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill",
            Self::Log => "log",
            Self::None => "none",
        })
    }
}

/// A list ready for the kernel; none in [`Mode::None`].
#[derive(Debug)]
pub struct Program {
    code: Option<BpfProgram>,
    rows: Vec<Call>,
    mode: Mode,
}

impl Program {
    /// Translates a list.
    ///
    /// # Errors
    /// If the list is too long for the kernel.
    pub fn new<'a>(calls: impl IntoIterator<Item = &'a Call>, mode: Mode) -> Result<Self, Fatal> {
        let otherwise = match mode {
            Mode::Kill => SeccompAction::KillProcess,
            Mode::Log => SeccompAction::Log,
            Mode::None => return Ok(Self { code: None, rows: Vec::new(), mode }),
        };
        let sorted = by_number(calls);
        let code = compile(&sorted, otherwise).map_err(fatal)?;
        Ok(Self { code: Some(code), rows: sorted.into_values().flatten().copied().collect(), mode })
    }

    /// What becomes of a process that does not keep to it.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Its length, instructions.
    pub fn len(&self) -> usize {
        self.code.as_ref().map_or(0, Vec::len)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.code.is_none()
    }

    /// What it allows, in the order of the calls' numbers.
    pub fn rows(&self) -> impl Iterator<Item = &Call> {
        self.rows.iter()
    }

    /// These calls answer ENOSYS, as on a kernel that does not have them, whatever another list says that allows
    /// them; all others pass. For clone3(2), whose flags no list can see: the C library then takes clone(2).
    ///
    /// # Errors
    /// None that a short list can have.
    pub fn absent(numbers: &[libc::c_long], mode: Mode) -> Result<Self, Fatal> {
        if mode == Mode::None {
            return Ok(Self { code: None, rows: Vec::new(), mode });
        }
        let rules = numbers.iter().map(|&number| (number, Vec::new())).collect();
        filter(rules, SeccompAction::Allow, SeccompAction::Errno(bits(libc::ENOSYS)))
            .map(|code| Self { code: Some(code), rows: Vec::new(), mode })
            .map_err(fatal)
    }

    /// From now on this thread, and those it makes, keep to the list.
    ///
    /// # Errors
    /// If the kernel has no seccomp filters.
    pub fn apply(&self) -> Result<(), Fatal> {
        self.with(seccompiler::apply_filter)
    }

    /// From now on all threads of this process keep to the list.
    ///
    /// # Errors
    /// As [`Program::apply`]; and if a thread has another list than this one.
    pub fn apply_to_all_threads(&self) -> Result<(), Fatal> {
        self.with(seccompiler::apply_filter_all_threads)
    }

    fn with(&self, apply: fn(&[seccompiler::sock_filter]) -> seccompiler::Result<()>) -> Result<(), Fatal> {
        self.code.as_ref().map_or(Ok(()), |program| apply(program).map_err(fatal))
    }
}

fn compile(sorted: &BTreeMap<i64, Vec<&Call>>, otherwise: SeccompAction) -> seccompiler::Result<BpfProgram> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for (&number, alternatives) in sorted {
        let rows = alternatives.iter().map(|call| call.pins().map(|pin| pin.condition()).collect());
        let conditions: Vec<Vec<SeccompCondition>> = rows.collect::<seccompiler::Result<_>>()?;
        let always = conditions.iter().any(Vec::is_empty);
        let rows = if always { Vec::new() } else { conditions };
        rules.insert(number, rows.into_iter().map(SeccompRule::new).collect::<Result<_, _>>()?);
    }
    filter(rules, otherwise, SeccompAction::Allow)
}

fn filter(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> seccompiler::Result<BpfProgram> {
    let architecture = std::env::consts::ARCH.try_into()?;
    Ok(SeccompFilter::new(rules, otherwise, matched, architecture)?.try_into()?)
}

/// Rows of one call together, each kind of row once.
fn by_number<'a>(calls: impl IntoIterator<Item = &'a Call>) -> BTreeMap<i64, Vec<&'a Call>> {
    let mut sorted: BTreeMap<i64, Vec<&Call>> = BTreeMap::new();
    for call in calls {
        let rows = sorted.entry(call.number).or_default();
        if !rows.iter().any(|row| row.pins == call.pins) {
            rows.push(call);
        }
    }
    sorted
}

fn fatal(error: seccompiler::Error) -> Fatal {
    Fatal::new("confine the process by seccomp", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_one_call_are_alternatives_and_the_same_row_counts_once() {
        let calls = [
            Call::at(libc::SYS_openat, "a").eq(2, 1),
            Call::at(libc::SYS_openat, "b").eq(2, 2),
            Call::at(libc::SYS_openat, "c").eq(2, 1),
            Call::any(libc::SYS_close, "d"),
        ];
        let sorted = by_number(&calls);
        assert_eq!(sorted.get(&libc::SYS_openat).unwrap().len(), 2);
        assert!(Program::new(&calls, Mode::Kill).unwrap().code.unwrap().len() > 10);
    }

    #[test]
    fn a_number_without_a_name_is_a_number() {
        assert_eq!(named(libc::SYS_openat), format!("openat ({})", libc::SYS_openat));
        assert_eq!([named(-1), named(9999)], ["a call without a name (-1)", "a call without a name (9999)"]);
    }

    #[test]
    fn a_weaker_mode_has_another_program_or_none() {
        assert!(Program::new(&[], Mode::None).unwrap().code.is_none());
        assert!("trap".parse::<Mode>().is_err());
        assert_eq!("log".parse(), Ok(Mode::Log));
    }

    /// What becomes of a process with the list `calls` that does `act`: its exit status or signal.
    fn end_of(calls: &'static [Call], act: fn()) -> (Option<i32>, Option<i32>) {
        // A filter ends the whole process, so each case has a process: this very test, run again.
        let name = std::thread::current().name().unwrap().to_owned();
        if std::env::var_os("SECCOMP_CASE").is_some() {
            Program::new(calls, Mode::Kill).unwrap().apply().unwrap();
            act();
            std::process::exit(7);
        }
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        let status = again.args(["--exact", &name]).env("SECCOMP_CASE", "1").status().unwrap();
        (status.code(), std::os::unix::process::ExitStatusExt::signal(&status))
    }

    const BASE: &[Call] = &[
        Call::any(libc::SYS_exit_group, ""),
        Call::any(libc::SYS_write, ""),
        Call::any(libc::SYS_munmap, ""),
        Call::any(libc::SYS_futex, ""),
        Call::any(libc::SYS_sigaltstack, ""),
        Call::at(libc::SYS_fcntl, "").eq(1, bits(libc::F_GETFL)),
    ];

    #[test]
    fn what_the_list_allows_goes_on() {
        assert_eq!(end_of(BASE, || assert!(rustix::fs::fcntl_getfl(std::io::stderr()).is_ok())), (Some(7), None));
    }

    #[test]
    fn a_call_that_is_not_on_the_list_ends_the_process() {
        assert_eq!(end_of(BASE, || assert!(rustix::process::getppid().is_some())), (None, Some(libc::SIGSYS)));
    }

    #[test]
    fn a_pinned_argument_that_differs_ends_the_process() {
        assert_eq!(
            end_of(BASE, || assert!(rustix::io::fcntl_getfd(std::io::stderr()).is_ok())),
            (None, Some(libc::SIGSYS))
        );
    }
}
