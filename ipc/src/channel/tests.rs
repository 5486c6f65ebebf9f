use super::*;
use crate::frame::FRAME_MAX;

#[test]
fn a_message_keeps_its_borders_and_its_descriptors() {
    let (a, b) = Channel::pair().unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    a.send(&[b"one", b"two"], &[null.as_fd(), null.as_fd()]).unwrap();
    a.send(&[b"x", b""], &[]).unwrap();
    let mut buffer = [0; 64];
    let first = b.receive(&mut buffer).unwrap();
    assert_eq!((first.len, first.descriptors.len()), (6, 2));
    assert_eq!(&buffer[..6], b"onetwo");
    assert_eq!(b.receive(&mut buffer).unwrap().len, 1);
}

#[test]
fn who_looks_finds_what_is_there_and_does_not_wait() {
    let (a, b) = Channel::pair().unwrap();
    assert!(b.look(&mut [0; 8]).unwrap().is_none());
    a.send(&[b"one", b""], &[]).unwrap();
    assert_eq!(b.look(&mut [0; 8]).unwrap().map(|got| got.len), Some(3));
    drop(a);
    assert_eq!(b.look(&mut [0; 8]).unwrap().map(|got| got.len), Some(0), "the other end is gone");
}

// ATTACKS B11: room for fewer descriptors than were sent leaves some installed without an owner.
#[test]
fn as_many_descriptors_as_a_message_can_carry_are_all_owned() {
    let (a, b) = Channel::pair().unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    let raw = [null.as_raw_fd(); SCM_MAX_FD];
    let rights = [nix::sys::socket::ControlMessage::ScmRights(&raw)];
    let flags = nix::sys::socket::MsgFlags::empty();
    nix::sys::socket::sendmsg::<()>(a.descriptors.as_raw_fd(), &[IoSlice::new(&[7])], &rights, flags, None).unwrap();
    let sent = u8::try_from(SCM_MAX_FD).unwrap();
    rustix::io::write(&a.output, &[1, 0, 0, 0, sent, 0, 0, 7, b'x']).unwrap();
    let got = b.receive(&mut [0; 8]).unwrap();
    assert_eq!((got.descriptors.len(), got.fault), (SCM_MAX_FD, None));
}

#[test]
fn a_message_of_any_length_comes_whole() {
    let (a, b) = Channel::pair().unwrap();
    for length in [1, 4087, 4088, 4089, 8184, FRAME_MAX - 1, FRAME_MAX] {
        let sent: Vec<u8> = (0..=250).cycle().take(length).collect();
        let mut buffer = vec![0; FRAME_MAX];
        let (head, rest) = sent.split_at(length / 3);
        let got = std::thread::scope(|scope| {
            scope.spawn(|| a.send(&[head, rest], &[]).unwrap());
            b.receive(&mut buffer).unwrap()
        });
        assert_eq!((got.len, got.fault), (length, None));
        assert!(buffer[..length] == sent, "{length}");
    }
}

#[test]
fn what_no_honest_end_sends_is_a_fault() {
    let not_said = "not as its envelope says";
    let not_those = "not with the descriptors that its envelope says";
    let cases: [(&[u8], &str); 10] = [
        (&[0; 8], "empty"),
        (&[0], "shorter than an envelope"),
        (&[0; 7], "shorter than an envelope"),
        (&[9, 0, 0, 0, 0, 0, 0, 0], "longer than a frame"),
        (&[1, 0, 0, 1, 0, 0, 0, 0, b'x'], "longer than a frame"),
        (&[1, 0, 0, 0, 0, 0, 0, 0, b'x', b'y'], not_said),
        (&[1, 0, 0, 0, 0, 0, 0, 1, b'x'], not_said),
        (&[1, 0, 0, 0, 0, 5, 0, 0, b'x'], "a descriptor comes in no known way"),
        (&[1, 0, 0, 0, 0, 0, 255, 0, b'x'], "a descriptor comes in no known way"),
        (&[1, 0, 0, 0, 1, 0, 0, 0, b'x'], not_those),
    ];
    for (bytes, why) in cases {
        let (a, b) = Channel::pair().unwrap();
        rustix::io::write(&a.output, bytes).unwrap();
        let got = b.receive(&mut [0; 8]).unwrap();
        assert_eq!((got.fault, got.len == 0), (Some(Malformed(why)), false), "{bytes:?}");
    }
}

// A message that could not be written after its descriptors were sent: they stay behind.
#[test]
fn descriptors_of_another_message_are_not_taken_for_its_own() {
    let (a, b) = Channel::pair().unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    send(&a.descriptors, &[&[9], &[]], &[null.as_fd()]).unwrap();
    a.send(&[b"x", b""], &[null.as_fd()]).unwrap();
    let fault = b.receive(&mut [0; 8]).unwrap().fault;
    assert_eq!(fault, Some(Malformed("not with the descriptors that its envelope says")));
}

#[test]
fn numbers_of_descriptors_begin_again_after_the_last() {
    let (a, b) = Channel::pair().unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    for _ in 0..600 {
        a.send(&[b"x", b""], &[null.as_fd()]).unwrap();
        let got = b.receive(&mut [0; 8]).unwrap();
        assert_eq!((got.fault, got.descriptors.len()), (None, 1));
    }
}

#[test]
fn the_end_of_a_message_that_breaks_off_is_the_end_of_the_channel() {
    let (a, b) = Channel::pair().unwrap();
    rustix::io::write(&a.output, &[5, 0, 0, 0, 0, 0, 0, 0, b'x']).unwrap();
    drop(a);
    assert_eq!(b.receive(&mut [0; 8]).unwrap().len, 0);
}

#[test]
fn a_message_longer_than_the_buffer_says_so() {
    let (a, b) = Channel::pair().unwrap();
    a.send(&[&[1; 100], b""], &[]).unwrap();
    assert_eq!(b.receive(&mut [0; 8]).unwrap().fault, Some(Malformed("longer than a frame")));
}

#[test]
fn descriptors_that_the_other_end_has_not_received_are_not_taken() {
    let (a, b) = Channel::pair().unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    assert_eq!(a.is_taken(), Ok(true));
    a.send(&[b"x", b""], &[null.as_fd()]).unwrap();
    assert_eq!(a.is_taken(), Ok(false));
    b.receive(&mut [0; 8]).unwrap();
    assert_eq!(a.is_taken(), Ok(true));
    a.send(&[b"x", b""], &[null.as_fd()]).unwrap();
    drop(b);
    assert_eq!(a.is_taken(), Ok(true));
}

#[test]
fn a_closed_end_reads_as_nothing_and_refuses_writing() {
    let (a, b) = Channel::pair().unwrap();
    drop(a);
    assert_eq!(b.receive(&mut [0; 8]).unwrap().len, 0);
    assert_eq!(b.send(&[b"x", b""], &[]).err(), Some(Errno::EPIPE));
}
