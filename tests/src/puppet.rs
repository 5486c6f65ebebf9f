//! A running process made to call what it would never call: what somebody can do who has taken it over. Nothing in the
//! process takes part in it: its main thread is held by ptrace(2), and goes on at an instruction of ours.

use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use nix::libc::user_regs_struct;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// How long a call may take before it counts as one that waits.
const PATIENCE: Duration = Duration::from_millis(500);
/// `AT_ENTRY`: where a program starts, once. getauxval(3)
const AT_ENTRY: u64 = 9;
/// Below the stack pointer, the 128 bytes that the ABI leaves to functions without calls of their own included.
const ROOM: u64 = 2048;

/// By which door the kernel is entered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Door {
    /// `syscall`, with the numbers of this architecture.
    Own,
    /// `syscall`, with the numbers of x32: `__X32_SYSCALL_BIT`.
    X32,
    /// `int $0x80`, with the numbers of i386.
    I386,
}

/// What became of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// The kernel killed the process for it.
    Killed,
    /// It was made, and returned this: an errno is negative.
    Returned(i64),
    /// It was made, and has not returned.
    Waits,
    /// It was made, and the process ended by it.
    Ended,
}

/// A process that is held.
pub struct Puppet {
    pid: Pid,
    registers: user_regs_struct,
    code: u64,
    data: u64,
}

impl Puppet {
    /// Takes hold of a process's main thread.
    ///
    /// # Panics
    /// Without the right to trace it, as all here.
    pub fn hold(pid: u32) -> Self {
        let code = entry(pid);
        let pid = Pid::from_raw(pid.try_into().expect("a process id"));
        ptrace::attach(pid).expect("root");
        let stopped = waitpid(pid, Some(WaitPidFlag::__WALL)).expect("a tracee");
        assert!(matches!(stopped, WaitStatus::Stopped(_, Signal::SIGSTOP)), "{stopped:?}");
        let registers = ptrace::getregs(pid).expect("stopped");
        Self { pid, registers, code, data: (registers.rsp - ROOM) & !0xf }
    }

    /// Puts bytes into its memory and says where they are.
    pub fn put(&mut self, bytes: &[u8]) -> u64 {
        let words = bytes.chunks(8).map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            i64::from_ne_bytes(word)
        });
        let at = self.data - 8 * (bytes.len() as u64 / 8 + 1);
        for (index, word) in (0..).zip(words) {
            ptrace::write(self.pid, (at + 8 * index) as *mut libc::c_void, word).expect("its stack");
        }
        self.data = at;
        at
    }

    /// Makes it call `number`, and says what became of that. Only if it returned it can be made to call more.
    pub fn call(&mut self, door: Door, number: u64, args: [u64; 6]) -> Fate {
        // syscall, or int $0x80; then int3
        let code: [u8; 8] = if door == Door::I386 {
            *b"\xcd\x80\xcc\xcc\xcc\xcc\xcc\xcc"
        } else {
            *b"\x0f\x05\xcc\xcc\xcc\xcc\xcc\xcc"
        };
        ptrace::write(self.pid, self.code as *mut libc::c_void, i64::from_ne_bytes(code)).expect("its code");
        let mut registers = user_regs_struct {
            rip: self.code,
            rax: if door == Door::X32 { number | 0x4000_0000 } else { number },
            // In no call that could be started again.
            orig_rax: u64::MAX,
            ..self.registers
        };
        [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9] = args;
        if door == Door::I386 {
            [registers.rbx, registers.rcx, registers.rdx, registers.rsi, registers.rdi, registers.rbp] = args;
        }
        ptrace::setregs(self.pid, registers).expect("stopped");
        ptrace::cont(self.pid, None).expect("stopped");
        self.fate()
    }

    fn fate(&self) -> Fate {
        let end = Instant::now() + PATIENCE;
        loop {
            match waitpid(self.pid, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)).expect("a tracee") {
                WaitStatus::Signaled(_, Signal::SIGSYS, _) => return Fate::Killed,
                WaitStatus::Exited(..) | WaitStatus::Signaled(..) => return Fate::Ended,
                WaitStatus::Stopped(_, Signal::SIGTRAP) => {
                    let registers = ptrace::getregs(self.pid).expect("stopped");
                    return Fate::Returned(i64::from_ne_bytes(registers.rax.to_ne_bytes()));
                }
                // A child of its own that it was made to end.
                WaitStatus::Stopped(_, Signal::SIGCHLD) => ptrace::cont(self.pid, None).expect("stopped"),
                // rt_sigreturn(2) goes wherever a frame that is none leads.
                WaitStatus::Stopped(..) => return Fate::Ended,
                _ if Instant::now() > end => return Fate::Waits,
                _ => std::thread::sleep(Duration::from_micros(100)),
            }
        }
    }
}

fn entry(pid: u32) -> u64 {
    let auxv = std::fs::File::open(format!("/proc/{pid}/auxv")).expect("root");
    let mut bytes = vec![0; 1024];
    let length = auxv.read_at(&mut bytes, 0).expect("proc(5)");
    let words = bytes[..length].chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().expect("8 bytes")));
    let words: Vec<_> = words.collect();
    words.chunks_exact(2).find(|pair| pair[0] == AT_ENTRY).expect("an entry")[1]
}
