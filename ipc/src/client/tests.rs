use super::*;
use crate::attr::RenameFlags;
use crate::name::FileName;
use crate::op::{Kind, Rename, Rmdir, SyncFs};

const HOUR: Duration = Duration::from_secs(3600);

fn serve_one(end: &Channel) {
    let mut buffer = vec![0; FRAME_MAX];
    let got = end.receive(&mut buffer).unwrap();
    let (header, _, _) = frame::split(&buffer[..got.len]).unwrap();
    let mut out = Vec::new();
    frame::encode(&mut out, header.serial, header.kind, None, &(), 0).unwrap();
    end.send(&[&out, b""], &[]).unwrap();
}

fn ask<O: Op>(links: &Links, op: &O) -> Result<()> {
    let null = Arc::new(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
    let at = O::At::all_of([&null]).unwrap();
    links.call(Caller::Root, op, &at, b"", |_, _, _| ())
}

fn rmdir() -> Rmdir {
    Rmdir { name: FileName::new(b"d").unwrap() }
}

#[test]
fn a_repeatable_request_is_asked_again_of_a_new_helper() {
    let (mine, old) = Channel::pair().unwrap();
    let (fresh, new) = Channel::pair().unwrap();
    let links = Links::new(vec![mine], Duration::ZERO, 0);
    drop(old);
    links.renew(vec![fresh]);
    let helper = std::thread::spawn(move || serve_one(&new));
    assert_eq!(ask(&links, &SyncFs {}), Ok(()));
    helper.join().unwrap();
}

#[test]
fn what_may_have_been_done_is_not_done_twice() {
    let (mine, old) = Channel::pair().unwrap();
    let (fresh, new) = Channel::pair().unwrap();
    let links = Links::new(vec![mine], Duration::ZERO, 0);
    links.renew(vec![fresh]);
    let dying = std::thread::spawn(move || old.receive(&mut [0; FRAME_MAX]).map(drop));
    assert_eq!(ask(&links, &rmdir()), Err(Errno::EIO));
    dying.join().unwrap().unwrap();
    let helper = std::thread::spawn(move || serve_one(&new));
    assert_eq!(ask(&links, &rmdir()), Ok(()), "the next request goes to the new helper");
    helper.join().unwrap();
}

// postern-ipc: again: may be sent once more
#[test]
fn a_request_that_no_helper_outlives_is_not_asked_for_ever() {
    let dying = |end: Channel| std::thread::spawn(move || end.receive(&mut [0; FRAME_MAX]).map(drop));
    let ends: Vec<_> = (0..3).map(|_| Channel::pair().unwrap()).collect();
    let mut ends = ends.into_iter();
    let (mine, first) = ends.next().unwrap();
    let (second, its) = ends.next().unwrap();
    let (third, living) = ends.next().unwrap();
    let links = Links::new(vec![mine], Duration::ZERO, 0);
    links.renew(vec![second]);
    let helpers = [dying(first), dying(its)];
    assert_eq!(ask(&links, &SyncFs {}), Err(Errno::EIO));
    helpers.into_iter().for_each(|helper| helper.join().unwrap().unwrap());
    links.renew(vec![third]);
    let helper = std::thread::spawn(move || serve_one(&living));
    assert_eq!(ask(&links, &SyncFs {}), Ok(()), "the next request goes to the new helper");
    helper.join().unwrap();
}

#[test]
fn without_a_helper_the_answer_is_eio_at_once() {
    let (mine, old) = Channel::pair().unwrap();
    let links = Links::new(vec![mine], Duration::ZERO, 0);
    drop(old);
    links.end();
    assert_eq!(ask(&links, &rmdir()), Err(Errno::EIO));
}

#[test]
fn an_answer_that_comes_at_once_is_looked_for_and_nobody_sleeps() {
    let (mine, its) = Channel::pair().unwrap();
    let mut buffer = [0; 8];
    for (look, most, often) in [(HOUR, 1, 92), (Duration::ZERO, 1, 0), (HOUR, 0, 0)] {
        let (lookers, mut patience) = (Lookers::new(most), Patience::new(look));
        for _ in 0..100 {
            its.send(&[b"answer", b""], &[]).unwrap();
            assert_eq!(lookers.await_answer(&mine, &mut patience, &mut buffer).unwrap().len, 6);
        }
        assert_eq!((lookers.found.into_inner(), lookers.now.into_inner()), (often, 0));
    }
}

#[test]
fn who_looks_sees_that_the_helper_is_gone() {
    let (mine, its) = Channel::pair().unwrap();
    let (lookers, mut patience) = (Lookers::new(1), Patience::new(HOUR));
    (0..8).for_each(|_| its.send(&[b"answer", b""], &[]).unwrap());
    drop(its);
    let lengths: Vec<_> =
        (0..9).map(|_| lookers.await_answer(&mine, &mut patience, &mut [0; 8]).unwrap().len).collect();
    assert_eq!(lengths, [6, 6, 6, 6, 6, 6, 6, 6, 0]);
    assert_eq!(lookers.found.into_inner(), 1);
}

/// What a helper sees of so many requests: how their descriptors come, and how many. It holds nothing of the request
/// with the number `forgets`.
fn comings(links: &Links, its: &Channel, forgets: usize, ask: impl FnOnce(&Links)) -> Vec<(Comings, usize)> {
    std::thread::scope(|scope| {
        let serving = scope.spawn(move || {
            let (mut buffer, mut seen) = (vec![0; FRAME_MAX], Vec::new());
            loop {
                let got = its.receive(&mut buffer).unwrap();
                let (header, ..) = frame::split(&buffer[..got.len]).unwrap();
                if header.kind == Kind::Stat as u16 {
                    return seen;
                }
                let errno = if seen.len() == forgets { Some(UNHELD) } else { Some(Errno::EROFS) };
                seen.push((got.comings, got.descriptors.len()));
                let mut out = Vec::new();
                frame::encode(&mut out, header.serial, header.kind, errno, &(), 0).unwrap();
                its.send(&[&out, b""], &[]).unwrap();
            }
        });
        ask(links);
        let mut end = Vec::new();
        frame::encode(&mut end, 0, Kind::Stat as u16, None, &(), 0).unwrap();
        let link = lock(&links.links[0]);
        link.channel.as_ref().unwrap().send(&[&end, b""], &[]).unwrap();
        serving.join().unwrap()
    })
}

fn file() -> Arc<OwnedFd> {
    Arc::new(std::fs::File::open("/dev/null").unwrap().into())
}

fn ask_about<O: Op>(links: &Links, op: &O, at: &[&Arc<OwnedFd>]) {
    let at = O::At::all_of(at.iter().copied()).unwrap();
    assert_eq!(links.call(Caller::Root, op, &at, b"", |_, _, _| ()), Err(Errno::EROFS));
}

const SENT: Coming = Coming::Sent;

#[test]
fn a_descriptor_that_the_helper_holds_is_not_sent_again() {
    let (mine, its) = Channel::pair().unwrap();
    let links = Links::new(vec![mine], Duration::ZERO, 0);
    let (a, b, c) = (file(), file(), file());
    let name = |text: &[u8]| FileName::new(text).unwrap();
    let rename = Rename { name: name(b"a"), new_name: name(b"b"), flags: RenameFlags::empty() };
    let seen = comings(&links, &its, usize::MAX, |links| {
        [&a, &a, &b, &a, &c, &a, &b].iter().for_each(|one| ask_about(links, &rmdir(), &[one]));
        ask_about(links, &rename, &[&c, &c]);
        ask_about(links, &rename, &[&a, &c]);
    });
    let (first, other) = (Slot::B, Slot::A);
    let kept = |slot| ([Coming::Kept(slot), SENT], 1);
    let held = |slot| ([Coming::Held(slot), SENT], 0);
    let each = [kept(first), held(first), kept(other), held(first), kept(other), held(first), kept(other)];
    assert_eq!(seen[..7], each, "the one that was not used last is replaced");
    assert_eq!(seen[7], ([Coming::Kept(first), Coming::Held(first)], 1));
    assert_eq!(seen[8], ([Coming::Kept(other), Coming::Held(first)], 1));
}

// close(2): the number is given to the next that is opened.
#[test]
fn another_descriptor_with_the_number_of_one_that_is_held_is_sent() {
    let (mine, its) = Channel::pair().unwrap();
    let links = Links::new(vec![mine], Duration::ZERO, 0);
    let seen = comings(&links, &its, usize::MAX, |links| {
        for _ in 0..4 {
            ask_about(links, &rmdir(), &[&file()]);
        }
    });
    assert_eq!(seen.len(), 4);
    assert!(seen.iter().all(|(comings, sent)| matches!(comings, [Coming::Kept(_), Coming::Sent]) && *sent == 1));
}

#[test]
fn a_helper_that_holds_nothing_more_is_sent_all_once_more() {
    let (mine, its) = Channel::pair().unwrap();
    let links = Links::new(vec![mine], Duration::ZERO, 0);
    let a = file();
    let seen = comings(&links, &its, 1, |links| (0..3).for_each(|_| ask_about(links, &rmdir(), &[&a])));
    let kept = Coming::Kept(Slot::B);
    let held = Coming::Held(Slot::B);
    assert_eq!(seen, [([kept, SENT], 1), ([held, SENT], 0), ([SENT, SENT], 1), ([kept, SENT], 1)]);
}

#[test]
fn one_that_a_request_names_twice_is_then_sent_twice() {
    let (mine, its) = Channel::pair().unwrap();
    let links = Links::new(vec![mine], Duration::ZERO, 0);
    let (a, name) = (file(), |text: &[u8]| FileName::new(text).unwrap());
    let rename = Rename { name: name(b"a"), new_name: name(b"b"), flags: RenameFlags::empty() };
    let seen = comings(&links, &its, 0, |links| ask_about(links, &rename, &[&a, &a]));
    assert_eq!(seen, [([Coming::Kept(Slot::B), Coming::Held(Slot::B)], 1), ([SENT, SENT], 2)]);
}

#[test]
fn another_helper_holds_nothing() {
    let (mine, old) = Channel::pair().unwrap();
    let (fresh, new) = Channel::pair().unwrap();
    let links = Links::new(vec![mine], Duration::ZERO, 0);
    let a = file();
    assert_eq!(comings(&links, &old, usize::MAX, |links| ask_about(links, &rmdir(), &[&a])).len(), 1);
    links.renew(vec![fresh]);
    drop(old);
    let seen = comings(&links, &new, usize::MAX, |links| ask_about(links, &rmdir(), &[&a]));
    assert!(matches!(seen[..], [([Coming::Kept(_), Coming::Sent], 1)]), "{seen:?}");
}

#[test]
fn an_answer_to_another_question_is_not_taken() {
    let mut out = Vec::new();
    frame::encode(&mut out, 8, Kind::Rmdir as u16, None, &(), 0).unwrap();
    assert!(answer::<Rmdir>(&out, 7, Descriptors::new()).is_err());
    assert!(answer::<SyncFs>(&out, 8, Descriptors::new()).is_err());
    assert!(answer::<Rmdir>(&out, 8, Descriptors::new()).is_ok_and(|answer| answer.is_ok()));
}
