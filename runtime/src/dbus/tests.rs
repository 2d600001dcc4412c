use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::JoinHandle;

use super::value::{Encoder, Value};
use super::*;

/// Serves one connection on an abstract socket of this test's own.
fn serve(name: &str, peer: impl FnOnce(UnixStream) + Send + 'static) -> (Address, JoinHandle<()>) {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("dbus-test-{}-{name}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let listener = UnixListener::bind_addr(&address).unwrap();
    let served = std::thread::spawn(move || peer(listener.accept().unwrap().0));
    (Address::Abstract(name.into_bytes()), served)
}

fn open(address: &Address) -> Result<Connection> {
    Connection::open(address, rustix::process::geteuid().as_raw(), Duration::from_secs(20))
}

fn authenticate(stream: &mut UnixStream) {
    let mut question = vec![0; AUTHENTICATION.len()];
    stream.read_exact(&mut question).unwrap();
    assert_eq!(question, AUTHENTICATION);
    stream.write_all(b"DATA\r\nOK 1234\r\n").unwrap();
}

/// The serial of the next call.
fn call_serial(stream: &mut UnixStream) -> u32 {
    let mut head = vec![0; message::FIXED];
    stream.read_exact(&mut head).unwrap();
    let rest = message::length(&head).unwrap().unwrap() - head.len();
    std::io::copy(&mut stream.take(rest as u64), &mut std::io::sink()).unwrap();
    u32::from_ne_bytes(head[8..12].try_into().unwrap())
}

/// A message with one text that answers the call `reply_to`.
fn incoming(kind: u8, reply_to: u32, argument: &str) -> Vec<u8> {
    let field =
        |code: u8, value: Value| Value::Struct(vec![Value::Byte(code), Value::variant(value)]);
    let fields = vec![
        field(5, Value::Uint32(reply_to)),
        field(4, Value::string("e.e")),
        field(8, Value::Signature("s".to_owned())),
    ];
    let mut body = Encoder::default();
    body.value(&Value::string(argument)).unwrap();
    let order = if cfg!(target_endian = "little") { b'l' } else { b'B' };
    let mut message = Encoder { bytes: vec![order, kind, 0, 1] };
    message.value(&Value::Uint32(u32::try_from(body.bytes.len()).unwrap())).unwrap();
    message.value(&Value::Uint32(9)).unwrap();
    message.value(&Value::Array("(yv)".to_owned(), fields)).unwrap();
    message.align(8);
    message.bytes.extend(body.bytes);
    message.bytes
}

fn any_call() -> Call<'static> {
    Call { destination: "d", path: "/p", interface: "i.i", member: "Do", arguments: Vec::new() }
}

#[test]
fn a_peer_that_goes_while_it_authenticates_is_an_error_at_once() {
    let (address, served) = serve("auth", drop);
    let before = Instant::now();
    let error = format!("{:#}", open(&address).unwrap_err());
    assert!(error.contains("authenticate to @dbus-test-"), "{error}");
    assert!(before.elapsed() < Duration::from_secs(10));
    served.join().unwrap();
}

#[test]
fn a_peer_that_refuses_is_quoted() {
    let (address, served) = serve("refuse", |mut stream| {
        stream.read_exact(&mut [0; AUTHENTICATION.len()]).unwrap();
        stream.write_all(b"REJECTED EXTERNAL\r\n").unwrap();
    });
    let error = format!("{:#}", open(&address).unwrap_err());
    assert!(error.ends_with("refused: REJECTED EXTERNAL"), "{error}");
    served.join().unwrap();
}

#[test]
fn a_peer_that_goes_while_it_is_waited_for_is_an_error_at_once() {
    let (address, served) = serve("call", |mut stream| {
        authenticate(&mut stream);
        call_serial(&mut stream);
    });
    let mut connection = open(&address).unwrap();
    let error = format!("{:#}", connection.call(&any_call()).unwrap_err());
    assert!(error.starts_with("wait for Do: "), "{error}");
    assert!(error.ends_with("closed the connection"), "{error}");
    served.join().unwrap();
}

#[test]
fn a_silent_peer_is_waited_for_until_the_deadline_only() {
    let (address, served) = serve("silent", |mut stream| {
        authenticate(&mut stream);
        std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
    });
    let mut connection = open(&address).unwrap();
    connection.set_deadline(Duration::from_millis(50));
    let error = format!("{:#}", connection.call(&any_call()).unwrap_err());
    assert!(error.ends_with("in time"), "{error}");
    drop(connection);
    served.join().unwrap();
}

#[test]
fn an_early_signal_is_kept_and_answers_to_others_are_passed_over() {
    let (address, served) = serve("signal", |mut stream| {
        authenticate(&mut stream);
        let serial = call_serial(&mut stream);
        let mut bytes = incoming(4, 0, "signal");
        bytes.extend(incoming(2, serial + 1, "another's"));
        bytes.extend(incoming(2, serial, "answer"));
        bytes.extend(incoming(3, serial + 1, "what is wrong"));
        // In pieces, as a stream may bring them.
        for piece in bytes.chunks(7) {
            stream.write_all(piece).unwrap();
        }
        call_serial(&mut stream);
    });
    let mut connection = open(&address).unwrap();
    let answer = connection.call(&any_call()).unwrap();
    assert_eq!(answer.text().unwrap().as_deref(), Some("answer"));
    assert_eq!(connection.signal().unwrap().text().unwrap().as_deref(), Some("signal"));
    let error = connection.call(&any_call()).unwrap_err();
    assert_eq!(error.downcast_ref::<CallError>().unwrap().text, "what is wrong");
    served.join().unwrap();
}
