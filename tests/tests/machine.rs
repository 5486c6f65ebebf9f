//! The machine changes around a share that a real guest is using: memory comes and goes, the guest boots again, the
//! helper dies.

use std::fs;

use postern_tests::Kind;
use postern_tests::guest::{Guest, Kernel};
use postern_tests::share::Server;

/// Room for one more module of memory; a reboot is none of QEMU's business.
const MACHINE: [&str; 4] = ["-m", "512M,slots=1,maxmem=2G", "-action", "reboot=reset"];
/// More than the memory that the guest begins with: bytes.
const MUCH: u64 = 600 << 20;

fn boot(share: &Server) -> Guest {
    Guest::boot_with(Kernel::V6_12, Kind::Mapped, &[("mnt", share)], &MACHINE)
}

/// Reads and writes all the time, and says nothing unless something was wrong.
const LOAD: &str = r#"
    cd /mnt; head -c 1m /dev/urandom >sample; sum=$(md5sum <sample)
    (while [ ! -e /run/enough ]; do cp sample copy; [ "$(md5sum <copy)" = "$sum" ] || echo torn; rm copy; done >/run/load 2>&1) &
"#;
/// All memory of the guest, KiB.
const TOTAL: &str = "awk '/MemTotal/ { print $2 }' /proc/meminfo";
const CALM: &str = "touch /run/enough; wait; sleep 1; while [ -e /mnt/copy ]; do sleep 1; done; cat /run/load";

#[test]
fn memory_plugged_into_a_guest_takes_data_and_may_be_taken_out_under_load() {
    let share = Kind::Mapped.setup().start();
    fs::File::create(share.dir().join("much")).unwrap().set_len(MUCH).unwrap();
    let mut guest = boot(&share);
    guest.ok("echo online_movable >/sys/devices/system/memory/auto_online_blocks");
    guest.ok(LOAD);
    let before = guest.ok(TOTAL);

    guest.monitor("object_add memory-backend-memfd,id=more,size=512M,share=on");
    guest.monitor("device_add pc-dimm,id=dimm,memdev=more");
    guest.ok(&format!("until [ $({TOTAL}) -gt 700000 ]; do sleep 1; done"));
    // The guest's cache of the file fills what it has got.
    assert_eq!(guest.ok("wc -c </mnt/much; cat /mnt/much | tr -d '\\0' | wc -c"), format!("{MUCH}\n0\n"));

    guest.ok("echo 3 >/proc/sys/vm/drop_caches");
    guest.monitor("device_del dimm");
    guest.ok(&format!("until [ $({TOTAL}) = {} ]; do sleep 1; done", before.trim()));
    assert_eq!(guest.ok(CALM), "");
    guest.power_off();
}

#[test]
fn a_guest_that_boots_again_mounts_again() {
    let share = Kind::Mapped.setup().start();
    let mut guest = boot(&share);
    for boot in 0..2 {
        guest.ok(&format!("exec 7<>/mnt/open; echo {boot} >>/mnt/boots; sync; sleep 100 7>&- &"));
        guest.ok(LOAD);
        guest.reboot();
    }
    assert_eq!(guest.ok("cat /mnt/boots"), "0\n1\n");
    guest.power_off();
}
