//! Handovers between two threads, and between two processes under load.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::wire::{Message, receive, send};
use super::*;

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(20);

fn listening() -> (Socket, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (Socket::from(listener), address)
}

fn address(socket: &Socket) -> SocketAddr {
    socket.local_addr().unwrap().as_socket().unwrap()
}

fn socket_path(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("handover.sock")
}

#[test]
fn sockets_are_passed_and_the_lock_follows() {
    let folder = tempfile::tempdir().unwrap();
    let path = socket_path(&folder);
    let server = Server::bind(&path).unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    // More than fit into one message.
    let proxy: Vec<_> = (0..70).map(|_| listening().0).collect();
    let listeners = Listeners {
        proxy,
        api: vec![listening().0],
        admin: Some(listening().0),
    };
    let expected: Vec<_> = listeners.proxy.iter().map(address).collect();
    let (api, admin) = (
        address(&listeners.api[0]),
        listeners.admin.as_ref().map(address),
    );
    let successor = thread::spawn(move || {
        let (client, listeners) = Client::connect(&path, LONG).unwrap();
        client.accepting().unwrap();
        assert_eq!(client.wait_released(LONG).unwrap(), Release::Told);
        listeners
    });
    let request = server.accept(LONG).unwrap().unwrap();
    assert_eq!(request.process() as u32, std::process::id());
    let offered = request.offer(&listeners, LONG).unwrap();
    drop(listeners);
    offered.released().unwrap();
    let got = successor.join().unwrap();
    assert_eq!(got.proxy.iter().map(address).collect::<Vec<_>>(), expected);
    assert_eq!(address(&got.api[0]), api);
    assert_eq!(got.admin.as_ref().map(address), admin);
    // They still listen, although who bound them has closed them.
    TcpStream::connect(expected[69]).unwrap();
}

#[test]
fn nobody_comes_and_the_wait_ends() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::bind(&socket_path(&folder)).unwrap();
    let waited = server.accept(Duration::from_millis(20)).unwrap();
    assert!(waited.is_none());
}

#[test]
fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = socket_path(&folder);
    assert!(matches!(
        Client::connect(&path, SECOND),
        Err(Error::Nobody(_))
    ));
    // Left behind: std does not remove it.
    drop(UnixListener::bind(&path).unwrap());
    assert!(matches!(
        Client::connect(&path, SECOND),
        Err(Error::Nobody(_))
    ));
    let server = Server::bind(&path).unwrap();
    assert!(matches!(Server::bind(&path), Err(Error::InUse(_))));
    drop(server);
    assert!(!path.exists());
    fs::write(&path, "precious").unwrap();
    assert!(matches!(Server::bind(&path), Err(Error::NoSocket(_))));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn the_old_process_does_not_remove_its_successors_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = socket_path(&folder);
    let old = Server::bind(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let new = Server::bind(&path).unwrap();
    drop(old);
    assert!(path.exists());
    drop(new);
}

#[test]
fn a_successor_that_dies_before_it_accepts_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = socket_path(&folder);
    let server = Server::bind(&path).unwrap();
    let listeners = Listeners {
        proxy: vec![listening().0],
        ..Listeners::default()
    };
    let successor = {
        let path = path.clone();
        thread::spawn(move || drop(Client::connect(&path, LONG).unwrap()))
    };
    let request = server.accept(LONG).unwrap().unwrap();
    assert!(matches!(request.offer(&listeners, LONG), Err(Error::Gone)));
    successor.join().unwrap();
    // The next one is served, and one that is too slow is not waited for.
    let (go, slow) = std::sync::mpsc::channel::<()>();
    let successor = thread::spawn(move || {
        let client = Client::connect(&path, LONG).unwrap();
        slow.recv().unwrap_err();
        drop(client);
    });
    let request = server.accept(LONG).unwrap().unwrap();
    let error = request
        .offer(&listeners, Duration::from_millis(30))
        .unwrap_err();
    assert!(
        error.to_string().contains("wait until a successor"),
        "{error}"
    );
    drop(go);
    successor.join().unwrap();
}

#[test]
fn an_old_process_that_dies_has_released_the_lock() {
    let folder = tempfile::tempdir().unwrap();
    let path = socket_path(&folder);
    let server = Server::bind(&path).unwrap();
    let successor = thread::spawn(move || {
        let (client, _) = Client::connect(&path, LONG).unwrap();
        client.accepting().unwrap();
        let slow = client.wait_released(Duration::from_millis(20));
        assert!(matches!(slow, Err(Error::Io { .. })));
        client.wait_released(LONG).unwrap()
    });
    let request = server.accept(LONG).unwrap().unwrap();
    let offered = request.offer(&Listeners::default(), LONG).unwrap();
    thread::sleep(Duration::from_millis(100));
    drop(offered);
    assert_eq!(successor.join().unwrap(), Release::Gone);
}

#[test]
fn strangers_and_other_versions_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = socket_path(&folder);
    let server = Server::bind(&path).unwrap();
    let say = |message: &[u8]| {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(message).unwrap();
        stream
    };
    // A release from the future gets an answer.
    let stream = UnixStream::connect(&path).unwrap();
    send(&stream, &Message::Hello { version: 2 }).unwrap();
    server.accept(LONG).unwrap_err();
    let answer = receive(&stream).unwrap();
    assert!(
        matches!(&answer, Message::Refused { why } if why.contains("version 2")),
        "{answer:?}"
    );
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\0\0\0\x02{}",
        b"\0\0\0\x17{\"message\":\"accepting\"}",
        b"\0",
    ] {
        let stream = say(garbage);
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        server.accept(LONG).unwrap_err();
    }
    // A refusal reaches the successor with its reason.
    let successor = {
        let path = path.clone();
        thread::spawn(move || Client::connect(&path, LONG).unwrap_err().to_string())
    };
    let request = server.accept(LONG).unwrap().unwrap();
    request.refuse("it is stopping already").unwrap();
    let error = successor.join().unwrap();
    assert!(error.contains("it is stopping already"), "{error}");
}

#[test]
fn other_users_are_told_apart() {
    let (own, other) = (Uid::from_raw(1000), Uid::from_raw(1001));
    same_user(own, own).unwrap();
    let error = same_user(other, own).unwrap_err().to_string();
    assert!(error.contains("user 1001, this one as 1000"), "{error}");
}

#[test]
fn what_does_not_listen_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = socket_path(&folder);
    let server = Server::bind(&path).unwrap();
    let successor = thread::spawn(move || Client::connect(&path, LONG).unwrap_err().to_string());
    let (listener, address) = listening();
    let listeners = Listeners {
        proxy: vec![listener, Socket::from(TcpStream::connect(address).unwrap())],
        ..Listeners::default()
    };
    let request = server.accept(LONG).unwrap().unwrap();
    request.offer(&listeners, LONG).unwrap_err();
    let error = successor.join().unwrap();
    assert!(error.contains("does not listen"), "{error}");
}

#[test]
fn no_socket_is_left_without_a_worker() {
    for (sockets, workers) in [
        (0, 3),
        (1, 1),
        (2, 2),
        (4, 2),
        (3, 2),
        (1, 3),
        (2, 5),
        (2, 0),
    ] {
        let sockets: Vec<_> = (0..sockets).map(|_| listening().0).collect();
        let mut all: Vec<_> = sockets.iter().map(address).collect();
        let sets = Listeners::spread(sockets, workers).unwrap();
        assert_eq!(sets.len(), workers.max(1));
        assert!(all.is_empty() || sets.iter().all(|set| !set.is_empty()));
        let mut spread: Vec<_> = sets.iter().flatten().map(address).collect();
        spread.sort_unstable();
        spread.dedup();
        all.sort_unstable();
        assert_eq!(spread, all);
    }
}

/// Answers every connection with one letter until it is told to stop.
fn serve(socket: Socket, letter: u8, stop: &AtomicBool) {
    let listener = TcpListener::from(socket);
    listener.set_nonblocking(true).unwrap();
    while !stop.load(Ordering::SeqCst) {
        match listener.accept() {
            Ok((mut stream, _)) => stream.write_all(&[letter]).unwrap(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_millis(1));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// This very program with another part to play.
fn child(part: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "handover::tests::another_process", "--nocapture"]);
    command.env("POINTSMAN_TEST_PART", part);
    command
}

/// The parts that other tests have child processes play; by itself nothing.
#[test]
fn another_process() {
    let variable = |name| std::env::var(name).unwrap_or_default();
    match variable("POINTSMAN_TEST_PART").as_str() {
        "successor" => {
            let path = variable("POINTSMAN_TEST_PATH");
            let (client, listeners) = Client::connect(Path::new(&path), LONG).unwrap();
            let stop = Arc::new(AtomicBool::new(false));
            let serving = {
                let stop = Arc::clone(&stop);
                let [socket] = <[Socket; 1]>::try_from(listeners.proxy).unwrap();
                thread::spawn(move || serve(socket, b'n', &stop))
            };
            client.accepting().unwrap();
            assert_eq!(client.wait_released(LONG).unwrap(), Release::Told);
            // Until the parent closes our input.
            io::stdin().read_to_end(&mut Vec::new()).unwrap();
            stop.store(true, Ordering::SeqCst);
            serving.join().unwrap();
        }
        "activated" => {
            let listeners = inherited().unwrap();
            assert!(listeners.proxy.is_empty());
            let admin = TcpListener::from(listeners.admin.unwrap());
            admin.set_nonblocking(false).unwrap();
            admin.accept().unwrap().0.write_all(b"a").unwrap();
        }
        _ => {}
    }
}

#[test]
fn a_process_is_replaced_under_load_and_nobody_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = socket_path(&folder);
    let server = Server::bind(&path).unwrap();
    let (socket, address) = listening();
    let listeners = Listeners {
        proxy: vec![socket.try_clone().unwrap()],
        ..Listeners::default()
    };
    let stop_old = AtomicBool::new(false);
    let stop_clients = AtomicBool::new(false);
    let answers = [const { AtomicUsize::new(0) }; 2];
    let ask = || {
        while !stop_clients.load(Ordering::SeqCst) {
            let mut letter = [0];
            TcpStream::connect(address)
                .unwrap()
                .read_exact(&mut letter)
                .unwrap();
            answers[usize::from(letter[0] == b'n')].fetch_add(1, Ordering::SeqCst);
        }
    };
    let wait = |which: usize| {
        let before = answers[which].load(Ordering::SeqCst);
        for _ in 0..2000 {
            if answers[which].load(Ordering::SeqCst) >= before + 50 {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("process {which} does not answer");
    };
    thread::scope(|scope| {
        let old = scope.spawn(|| serve(socket, b'o', &stop_old));
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        wait(0);
        let mut successor = child("successor")
            .env("POINTSMAN_TEST_PATH", &path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let request = server.accept(LONG).unwrap().unwrap();
        assert_eq!(request.process() as u32, successor.id());
        let offered = request.offer(&listeners, LONG).unwrap();
        wait(1);
        stop_old.store(true, Ordering::SeqCst);
        old.join().unwrap();
        drop(listeners);
        offered.released().unwrap();
        wait(1);
        stop_clients.store(true, Ordering::SeqCst);
        for client in clients {
            client.join().unwrap();
        }
        drop(successor.stdin.take());
        assert!(successor.wait().unwrap().success());
    });
}

#[test]
fn a_socket_comes_with_the_start() {
    let (socket, address) = listening();
    let mut shell = Command::new("sh");
    let child = child("activated");
    shell
        .args(["-c", "exec 3<&0; export LISTEN_PID=$$; exec \"$@\"", "sh"])
        .arg(child.get_program())
        .args(child.get_args())
        .env("POINTSMAN_TEST_PART", "activated")
        .env("LISTEN_FDS", "1")
        .env("LISTEN_FDNAMES", "admin")
        .stdin(Stdio::from(OwnedFd::from(socket)))
        .stdout(Stdio::null());
    let mut activated = shell.spawn().unwrap();
    let mut letter = [0];
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.read_exact(&mut letter).unwrap();
    assert_eq!(letter, *b"a");
    assert!(activated.wait().unwrap().success());
}
