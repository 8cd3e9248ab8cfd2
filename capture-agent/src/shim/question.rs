//! Questions about processes that the agent may not look at, as they pass over the socket: requests of the same size as
//! those about stopped backends, each answered with an error number or 0, a length, that many bytes, and for a file its
//! descriptor beside the first of them.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

use super::message::REQUEST;
use crate::probes::{Answer, Question, ServerFile};

/// A request: what is asked, of which process, and two numbers more where the question has any.
pub(super) fn to_bytes(question: Question) -> [u8; REQUEST] {
    let (code, pid, first, second) = match question {
        Question::Servers => (16, 0, 0, 0),
        Question::Executable(pid) => (17, pid, 0, 0),
        Question::Sockets(pid) => (18, pid, 0, 0),
        Question::Peer(pid, fd) => (19, pid, u64::from(fd), 0),
        Question::Moved(pid, fd) => (20, pid, u64::from(fd), 0),
        Question::Sleeps(pid) => (21, pid, 0, 0),
        Question::File(pid, ServerFile::Executable) => (22, pid, 0, 0),
        Question::File(pid, ServerFile::Maps) => (23, pid, 0, 0),
        Question::File(pid, ServerFile::PidFile) => (24, pid, 0, 0),
        Question::File(pid, ServerFile::Version) => (25, pid, 0, 0),
        Question::File(pid, ServerFile::Library { start, end }) => (26, pid, start, end),
    };
    let mut bytes = [0; REQUEST];
    bytes[0..4].copy_from_slice(&u32::to_le_bytes(code));
    bytes[4..8].copy_from_slice(&u32::to_le_bytes(pid));
    bytes[8..16].copy_from_slice(&u64::to_le_bytes(first));
    bytes[16..24].copy_from_slice(&u64::to_le_bytes(second));
    bytes
}

/// Reads a request; none if it is not one, to the last byte.
pub(super) fn parse(bytes: &[u8; REQUEST]) -> Option<Question> {
    let half = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let whole = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let (pid, first, second) = (half(4)?, whole(8)?, whole(16)?);
    let fd = u32::try_from(first);
    let question = match half(0)? {
        16 => Question::Servers,
        17 => Question::Executable(pid),
        18 => Question::Sockets(pid),
        19 => Question::Peer(pid, fd.ok()?),
        20 => Question::Moved(pid, fd.ok()?),
        21 => Question::Sleeps(pid),
        22 => Question::File(pid, ServerFile::Executable),
        23 => Question::File(pid, ServerFile::Maps),
        24 => Question::File(pid, ServerFile::PidFile),
        25 => Question::File(pid, ServerFile::Version),
        26 => Question::File(pid, ServerFile::Library { start: first, end: second }),
        _ => return None,
    };
    (to_bytes(question) == *bytes).then_some(question)
}

/// The shim's end: sends the answer.
pub(super) fn reply(mut agent: &UnixStream, answer: io::Result<Answer>) -> io::Result<()> {
    let answer = answer.and_then(|answer| match answer.bytes.len() {
        0..=MAX_ANSWER => Ok(answer),
        _ => Err(io::ErrorKind::FileTooLarge.into()),
    });
    let (error, answer) = match answer {
        Ok(answer) => (0, answer),
        Err(error) => (error.raw_os_error().unwrap_or(libc::EACCES), Answer::default()),
    };
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&error.to_le_bytes());
    header[4..].copy_from_slice(&u32::try_from(answer.bytes.len()).unwrap_or(0).to_le_bytes());
    let files: Vec<_> = answer.file.iter().map(File::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !rights.push(SendAncillaryMessage::ScmRights(&files)) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let sent = sendmsg(agent, &[IoSlice::new(&header)], &mut rights, SendFlags::NOSIGNAL)?;
    agent.write_all(header.get(sent..).unwrap_or_default())?;
    agent.write_all(&answer.bytes)
}

/// The agent's end: asks, and waits for the answer. The outer error is the connection's, the inner one the answer.
pub(super) fn ask(mut shim: &UnixStream, question: Question) -> io::Result<io::Result<Answer>> {
    shim.write_all(&to_bytes(question))?;
    let mut header = [0; HEADER];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(shim, &mut [IoSliceMut::new(&mut header)], &mut rights, RecvFlags::CMSG_CLOEXEC)?.bytes;
    let mut files = rights.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    let file = files.next().map(File::from);
    if received == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    shim.read_exact(header.get_mut(received..).unwrap_or_default())?;
    let [a, b, c, d, e, f, g, h] = header;
    let (error, length) = (i32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]) as usize);
    if length > MAX_ANSWER {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length];
    shim.read_exact(&mut bytes)?;
    Ok(match error {
        0 => Ok(Answer { bytes, file }),
        error => Err(io::Error::from_raw_os_error(error)),
    })
}

const HEADER: usize = 8;
/// The longest answer: some thousands of servers' processes, or of one's sockets.
const MAX_ANSWER: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use std::io::Seek as _;

    use proptest::prelude::*;

    use super::*;

    fn questions() -> impl Strategy<Value = Question> {
        let file = prop_oneof![
            Just(ServerFile::Executable),
            Just(ServerFile::Maps),
            Just(ServerFile::PidFile),
            Just(ServerFile::Version),
            any::<(u64, u64)>().prop_map(|(start, end)| ServerFile::Library { start, end }),
        ];
        prop_oneof![
            Just(Question::Servers),
            any::<u32>().prop_map(Question::Executable),
            any::<u32>().prop_map(Question::Sockets),
            any::<(u32, u32)>().prop_map(|(pid, fd)| Question::Peer(pid, fd)),
            any::<(u32, u32)>().prop_map(|(pid, fd)| Question::Moved(pid, fd)),
            any::<u32>().prop_map(Question::Sleeps),
            (any::<u32>(), file).prop_map(|(pid, file)| Question::File(pid, file)),
        ]
    }

    proptest! {
        #[test]
        fn a_question_is_read_as_it_was_written(question in questions()) {
            prop_assert_eq!(parse(&to_bytes(question)), Some(question));
        }

        #[test]
        fn what_is_read_can_be_written_again(code in 0..40u32, pid: u32, rest: [u8; REQUEST - 8]) {
            let mut bytes = [0; REQUEST];
            bytes[..4].copy_from_slice(&code.to_le_bytes());
            bytes[4..8].copy_from_slice(&pid.to_le_bytes());
            bytes[8..].copy_from_slice(&rest);
            prop_assert_eq!(parse(&bytes), None, "bytes that mean nothing");
            bytes[8..].fill(0);
            if let Some(question) = parse(&bytes) {
                prop_assert_eq!(to_bytes(question), bytes);
            }
        }

        #[test]
        fn no_request_is_of_both_kinds(question in questions()) {
            prop_assert_eq!(super::super::message::Request::parse(&to_bytes(question)), None);
        }
    }

    #[test]
    fn an_answer_arrives_with_its_file() {
        let (agent, shim) = UnixStream::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"17\n").unwrap();
        file.rewind().unwrap();
        let serve = |answer| reply(&shim, answer).unwrap();
        serve(Ok(Answer { bytes: b"/bin/postgres".to_vec(), file: Some(file) }));
        let answer = ask(&agent, Question::Executable(1)).unwrap().unwrap();
        assert_eq!(answer.bytes, b"/bin/postgres");
        assert_eq!(io::read_to_string(answer.file.unwrap()).unwrap(), "17\n");
        serve(Ok(Answer { bytes: vec![0; MAX_ANSWER + 1], file: None }));
        assert!(ask(&agent, Question::Servers).unwrap().is_err());
        serve(Err(io::Error::from_raw_os_error(libc::ESRCH)));
        let refused = ask(&agent, Question::Servers).unwrap().unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ESRCH));
        serve(Ok(Answer::default()));
        assert!(ask(&agent, Question::Servers).unwrap().unwrap().file.is_none());
        drop(shim);
        assert!(ask(&agent, Question::Servers).is_err());
    }
}
