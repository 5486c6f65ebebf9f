//! A client on a stream, served from memory: no helper, no share.
#![allow(clippy::arithmetic_side_effects)]

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use super::message::*;
use super::wire::{Content, Get, Put, Reader, Text};
use super::{Clients, MSIZE_MAX, Settings, Streams, Users, Wires};
use crate::fs::synthetic::Synthetic;

const L: &[u8] = b"9P2000.L";

/// A client of a server that has nobody else.
fn client(pool: usize) -> UnixStream {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let settings = Settings { msize: MSIZE_MAX, xattr: true, posix_acl: false, fids: 1 << 20 };
    let streams = Streams::new(&Arc::new(Synthetic::default()), &Users::Judged, settings, 1, pool).unwrap();
    std::thread::spawn(move || streams.serve(Clients::Connected(Wires::from(OwnedFd::from(theirs)))));
    ours.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    ours
}

fn send(client: &mut UnixStream, tag: u16, message: &(impl Message + Put), data: &[u8]) {
    let mut body = Vec::new();
    message.put(&mut body);
    let size = u32::try_from(HEADER + body.len() + data.len()).unwrap();
    let head = [&size.to_le_bytes()[..], &[kind(message)], &tag.to_le_bytes()].concat();
    client.write_all(&[&head, body.as_slice(), data].concat()).unwrap();
}

fn kind<M: Message>(_: &M) -> u8 {
    M::NUMBER
}

fn receive(client: &mut UnixStream) -> (u8, u16, Vec<u8>) {
    let mut head = [0; HEADER];
    client.read_exact(&mut head).unwrap();
    let size = u32::from_le_bytes(head[..4].try_into().unwrap());
    let mut body = vec![0; usize::try_from(size).unwrap() - HEADER];
    client.read_exact(&mut body).unwrap();
    (head[4], u16::from_le_bytes([head[5], head[6]]), body)
}

fn ask(client: &mut UnixStream, message: &(impl Message + Put), data: &[u8]) -> Result<Vec<u8>, u32> {
    send(client, 7, message, data);
    let (answered, tag, body) = receive(client);
    assert_eq!(tag, 7);
    if answered == Rlerror::NUMBER {
        return Err(Rlerror::get(&mut Reader::new(&body)).unwrap().ecode);
    }
    assert_eq!(answered, kind(message) + 1);
    Ok(body)
}

fn mounted(pool: usize) -> UnixStream {
    let mut client = client(pool);
    ask(&mut client, &Tversion { msize: MSIZE_MAX, version: Text(L) }, &[]).unwrap();
    let attach = Tattach { fid: 0, afid: NOFID, uname: Text(b"u"), aname: Text(b"/"), n_uname: 1000 };
    ask(&mut client, &attach, &[]).unwrap();
    client
}

fn file(client: &mut UnixStream, fid: u32) {
    ask(client, &Twalk { fid: 0, newfid: fid, names: vec![] }, &[]).unwrap();
    let name = fid.to_string();
    let create = Tlcreate { fid, name: Text(name.as_bytes()), flags: 2, mode: 0o600, gid: 7 };
    ask(client, &create, &[]).unwrap();
}

#[test]
fn what_is_written_is_read_back_on_a_stream() {
    for pool in [0, 2] {
        let mut client = mounted(pool);
        file(&mut client, 1);
        let data: Vec<u8> = (0..300_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        ask(&mut client, &Twrite { fid: 1, offset: 5, count: 300_000 }, &data).unwrap();
        let body = ask(&mut client, &Tread { fid: 1, offset: 5, count: 400_000 }, &[]).unwrap();
        assert_eq!(Content::get(&mut Reader::new(&body)), Ok(Content(&data)));
        ask(&mut client, &Tfsync { fid: 1, datasync: 0 }, &[]).unwrap();
        let body = ask(&mut client, &Tgetattr { fid: 1, request_mask: 0 }, &[]).unwrap();
        let attr = Rgetattr::get(&mut Reader::new(&body)).unwrap();
        assert_eq!((attr.size, attr.uid, attr.gid), (300_005, 1000, 7));
        ask(&mut client, &Tclunk { fid: 1 }, &[]).unwrap();
        assert_eq!(ask(&mut client, &Tclunk { fid: 1 }, &[]), Err(9));
    }
}

// walk(5): "The walk request ... .. ... The name .. of the root"
#[test]
fn two_dots_lead_up_and_stay_at_the_root() {
    let mut client = mounted(0);
    ask(&mut client, &Tmkdir { dfid: 0, name: Text(b"a"), mode: 0o755, gid: 0 }, &[]).unwrap();
    let names = vec![Text(b"a"), Text(b".."), Text(b".."), Text(b"a")];
    let body = ask(&mut client, &Twalk { fid: 0, newfid: 1, names }, &[]).unwrap();
    let qids = Rwalk::get(&mut Reader::new(&body)).unwrap().qids;
    assert_eq!((qids[0].path, qids[1].path), (qids[3].path, qids[2].path));
    assert_ne!(qids[0].path, qids[1].path);
}

// flush(5): "it must respond to the original ... before Rflush" or never
#[test]
fn a_flush_comes_last_whatever_became_of_what_it_flushes() {
    let mut client = mounted(2);
    file(&mut client, 1);
    for round in 0..200_u16 {
        send(&mut client, 1000 + round, &Tfsync { fid: 1, datasync: 0 }, &[]);
        send(&mut client, 1, &Tflush { oldtag: 1000 + round }, &[]);
        let mut seen = Vec::new();
        while seen.last() != Some(&1) {
            seen.push(receive(&mut client).1);
        }
        assert!(seen == [1] || seen == [1000 + round, 1], "{seen:?}");
    }
}

// A client that breaks the framing cannot be understood any more.
#[test]
fn a_client_that_breaks_the_framing_is_disconnected() {
    for size in [0_u32, 6, 8193, u32::MAX] {
        let mut client = client(1);
        ask(&mut client, &Tversion { msize: 8192, version: Text(L) }, &[]).unwrap();
        client.write_all(&[&size.to_le_bytes()[..], &[Tclunk::NUMBER, 0, 0]].concat()).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "{size}");
    }
}

#[test]
fn an_error_in_a_request_is_answered() {
    let mut client = mounted(1);
    assert_eq!(ask(&mut client, &Twrite { fid: 0, offset: 0, count: 9 }, b"short"), Err(22));
    assert_eq!(ask(&mut client, &Tread { fid: 0, offset: 0, count: u32::MAX }, &[]), Err(9));
    assert_eq!(ask(&mut client, &Tauth { afid: 1, uname: Text(b""), aname: Text(b""), n_uname: 0 }, &[]), Err(2));
}

// diod protocol.md, lock: "status ... LOCK_SUCCESS 0, LOCK_BLOCKED 1"
#[test]
fn a_lock_is_its_process_s_until_the_fid_goes() {
    let mut client = mounted(0);
    file(&mut client, 1);
    ask(&mut client, &Twalk { fid: 0, newfid: 2, names: vec![Text(b"1")] }, &[]).unwrap();
    ask(&mut client, &Tlopen { fid: 2, flags: 2 }, &[]).unwrap();
    let lock = |client: &mut UnixStream, fid, proc_id| {
        let message = Tlock { fid, kind: 1, flags: 0, start: 0, length: 0, proc_id, client_id: Text(b"m") };
        ask(client, &message, &[]).unwrap()
    };
    assert_eq!((lock(&mut client, 1, 7), lock(&mut client, 2, 8)), (vec![0], vec![1]));
    let whose = Tgetlock { fid: 2, kind: 1, start: 5, length: 1, proc_id: 8, client_id: Text(b"m") };
    let told = Rgetlock { kind: 1, start: 0, length: 0, proc_id: 7, client_id: Text(b"m") };
    assert_eq!(Rgetlock::get(&mut Reader::new(&ask(&mut client, &whose, &[]).unwrap())), Ok(told));
    ask(&mut client, &Tclunk { fid: 1 }, &[]).unwrap();
    assert_eq!(lock(&mut client, 2, 8), [0]);
}
