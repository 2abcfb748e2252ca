//! What the two processes say to each other: short messages of JSON, each after its length in four bytes (big-endian), and descriptors
//! as `SCM_RIGHTS` with one byte for each [`BATCH`] of them.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

/// Descriptors in one message; Linux takes 253.
const BATCH: usize = 64;

/// More than any message.
const LONGEST: u32 = 64 * 1024;

/// More than any machine has cores, twice.
const MOST: usize = 16 * 1024;

/// What is said. A release that knows more fields is understood; one that needs them has another version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "message")]
pub(super) enum Message {
    /// The successor, first.
    Hello { version: u32 },
    /// The old process; so many descriptors follow, in this order.
    Listeners {
        version: u32,
        proxy: usize,
        api: usize,
        admin: usize,
    },
    /// The old process, instead.
    Refused { why: String },
    /// The successor: it accepts on the sockets.
    Accepting,
    /// The old process: the data directory's lock is free.
    Released,
}

pub(super) fn send(mut stream: &UnixStream, message: &Message) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    let mut bytes = (text.len() as u32).to_be_bytes().to_vec();
    bytes.extend_from_slice(&text);
    stream.write_all(&bytes)
}

pub(super) fn receive(mut stream: &UnixStream) -> io::Result<Message> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length > LONGEST {
        return Err(invalid("a message of the handover is too long"));
    }
    let mut text = vec![0; length as usize];
    stream.read_exact(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

pub(super) fn send_descriptors(stream: &UnixStream, all: &[BorrowedFd<'_>]) -> io::Result<()> {
    for batch in all.chunks(BATCH) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(batch)) {
            return Err(invalid("descriptors do not fit into a message"));
        }
        let sent = rustix::io::retry_on_intr(|| {
            sendmsg(
                stream,
                &[IoSlice::new(b".")],
                &mut control,
                SendFlags::NOSIGNAL,
            )
        })?;
        if sent != 1 {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    Ok(())
}

pub(super) fn receive_descriptors(stream: &UnixStream, count: usize) -> io::Result<Vec<OwnedFd>> {
    if count > MOST {
        return Err(invalid("too many descriptors are announced"));
    }
    let mut found = Vec::new();
    while found.len() < count {
        let before = found.len();
        receive_batch(stream, &mut found)?;
        if found.len() == before || found.len() > count {
            return Err(invalid("descriptors are missing"));
        }
    }
    Ok(found)
}

fn receive_batch(stream: &UnixStream, found: &mut Vec<OwnedFd>) -> io::Result<()> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(
            stream.as_fd(),
            &mut [IoSliceMut::new(&mut byte)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            found.extend(descriptors);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(invalid(
            "descriptors were lost: this process may not open more files (ulimit -n)",
        ));
    }
    Ok(())
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
