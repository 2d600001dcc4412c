//! A token server: gives out what docker-registry takes, signed by a key of the test's own, and
//! remembers what it was asked.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;

use super::Scene;
use super::command::Cmd;
use super::registry::{PASSWORD, USER};

/// What stands for the password after a login.
pub(crate) const IDENTITY: &str = "an-identity-token";

/// Serves until the test ends.
pub(crate) struct TokenServer {
    pub(crate) realm: String,
    pub(crate) certificate: PathBuf,
    /// What was asked: the query or the form of each request.
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
}

impl TokenServer {
    /// Anybody may pull; push and delete need the password or what stands for it.
    pub(crate) fn start(scene: &Scene) -> Self {
        let dir = scene.path("tokens");
        fs::create_dir_all(&dir).unwrap();
        let make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=tokens \
                    -keyout key.pem -out cert.pem && openssl x509 -in cert.pem -outform DER \
                    -out cert.der";
        Cmd::new("sh").args(["-c", make]).dir(&dir).run().success();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let realm = format!("http://{}/token", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, certificate) = (Arc::clone(&asked), dir.join("cert.pem"));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(stream, &dir, &log);
            }
        });
        Self { realm, certificate, asked }
    }

    /// Takes what was asked until now.
    pub(crate) fn take_asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

fn answer(mut stream: TcpStream, dir: &Path, log: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut first = String::new();
    reader.read_line(&mut first).unwrap();
    let (mut authorization, mut length) = (None, 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => authorization = Some(value.to_owned()),
            "content-length" => length = value.parse().unwrap(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let form = String::from_utf8(body).unwrap();
    let query = first.split(' ').nth(1).unwrap().split_once('?').map_or("", |(_, query)| query);
    let asked = if form.is_empty() { query.to_owned() } else { form };
    let basic = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
    let known = authorization.as_deref() == Some(&basic)
        || parameters(&asked).any(|(name, value)| name == "refresh_token" && value == IDENTITY);
    let wrong = authorization.is_some() && !known;
    log.lock().unwrap().push(asked.clone());
    let (status, body) = if wrong {
        ("401 Unauthorized", "{}".to_owned())
    } else {
        let mut answer = json!({ "token": token(dir, &asked, known), "expires_in": 300 });
        if asked.contains("offline_token=true") && known {
            answer["refresh_token"] = IDENTITY.into();
        }
        ("200 OK", answer.to_string())
    };
    // The client may be gone.
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
}

fn parameters(query: &str) -> impl Iterator<Item = (&str, String)> {
    query.split('&').filter_map(|pair| pair.split_once('=')).map(|(name, value)| {
        (
            name,
            value.replace("%20", " ").replace("%3A", ":").replace("%2C", ",").replace("%2A", "*"),
        )
    })
}

/// A token for the scopes that were asked for and are granted.
fn token(dir: &Path, asked: &str, known: bool) -> String {
    let scopes: Vec<String> = parameters(asked)
        .filter(|(name, _)| *name == "scope")
        .flat_map(|(_, value)| value.split(' ').map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let access: Vec<_> = scopes
        .iter()
        .filter_map(|scope| {
            let (kind, rest) = scope.split_once(':')?;
            let (name, actions) = rest.rsplit_once(':')?;
            let granted: Vec<&str> =
                actions.split(',').filter(|action| known || *action == "pull").collect();
            Some(json!({ "type": kind, "name": name, "actions": granted }))
        })
        .collect();
    let certificate = STANDARD.encode(fs::read(dir.join("cert.der")).unwrap());
    let header = json!({ "typ": "JWT", "alg": "RS256", "x5c": [certificate] });
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({
        "iss": "tests", "sub": USER, "aud": "tests", "exp": now + 300, "nbf": now - 10,
        "iat": now, "jti": "1", "access": access,
    });
    let text = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    fs::write(dir.join("text"), &text).unwrap();
    let sign = "openssl dgst -sha256 -sign key.pem -out signature text";
    Cmd::new("sh").args(["-c", sign]).dir(dir).run().success();
    let signature = fs::read(dir.join("signature")).unwrap();
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}
