//! A registry on loopback: Debian's docker-registry, with its storage in the scene.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::command::Cmd;
use super::{Scene, requires};

/// Whom [`Guard::Password`] lets in.
pub(crate) const USER: &str = "tester";
pub(crate) const PASSWORD: &str = "s3:cret";
/// bcrypt of that password.
const HTPASSWD: &str = "tester:$2b$04$C93BEafmozLYcYbW6AgaU.CbA6eku3CBT.nPYLKc1NsACSk67YGzS\n";

/// Who may do what in a registry.
pub(crate) enum Guard<'a> {
    Nobody,
    /// TLS, and one user with a password.
    Password,
    /// TLS, and whoever has a certificate of the registry's authority.
    Certificate,
    /// Whoever brings a token of the server at this URL.
    Token {
        realm: &'a str,
        certificate: &'a Path,
    },
}

/// Serves until it is dropped.
pub(crate) struct Registry {
    child: Child,
    /// `127.0.0.1:PORT`.
    pub(crate) host: String,
    /// A directory with the certificate of its authority, if it speaks TLS.
    pub(crate) certificates: PathBuf,
}

impl Registry {
    pub(crate) fn start(scene: &Scene) -> Self {
        Self::guarded(scene, &Guard::Nobody)
    }

    pub(crate) fn start_at(scene: &Scene, port: u16) -> Self {
        Self::serve(scene, port, &Guard::Nobody)
    }

    pub(crate) fn guarded(scene: &Scene, guard: &Guard<'_>) -> Self {
        Self::serve(scene, free_port(), guard)
    }

    fn serve(scene: &Scene, port: u16, guard: &Guard<'_>) -> Self {
        requires::program("docker-registry", "docker-registry");
        let host = format!("127.0.0.1:{port}");
        let dir = scene.path(&format!("registry-{port}"));
        fs::create_dir_all(&dir).unwrap();
        let certificates = dir.join("certs.d");
        let auth = match guard {
            Guard::Nobody | Guard::Certificate => String::new(),
            Guard::Password => {
                fs::write(dir.join("htpasswd"), HTPASSWD).unwrap();
                format!("auth: {{htpasswd: {{realm: tests, path: {}/htpasswd}}}}\n", dir.display())
            }
            Guard::Token { realm, certificate } => format!(
                "auth: {{token: {{realm: '{realm}', service: tests, issuer: tests, \
                 rootcertbundle: {}}}}}\n",
                certificate.display()
            ),
        };
        let tls = match guard {
            Guard::Password | Guard::Certificate => {
                make_certificates(&dir, &certificates);
                let clients = match guard {
                    Guard::Certificate => format!(", clientcas: [{0}/ca.crt]", dir.display()),
                    _ => String::new(),
                };
                format!(
                    ", tls: {{certificate: {0}/server.crt, key: {0}/server.key{clients}}}",
                    dir.display()
                )
            }
            Guard::Nobody | Guard::Token { .. } => String::new(),
        };
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{delete: {{enabled: true}}, \
             filesystem: {{rootdirectory: {}}}}}\n{auth}http: {{addr: '{host}'{tls}}}\n",
            dir.join("storage").display()
        );
        let config = dir.join("config.yml");
        fs::write(&config, text).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start docker-registry");
        let registry = Self { child, host, certificates };
        registry.wait_until_it_listens();
        registry
    }

    fn wait_until_it_listens(&self) {
        let ask = "for i in $(seq 300); do curl -sk -o /dev/null http://$0/v2/ && exit 0; \
                   sleep 0.1; done; exit 1";
        let outcome = Cmd::new("sh").args(["-c", ask, &self.host]).run();
        assert_eq!(outcome.code, 0, "the registry does not answer: {}", outcome.stderr);
        assert!(TcpStream::connect(&self.host).is_ok());
    }

    /// Puts the image of an OCI layout there by skopeo: `name` is `lib/image:tag`.
    pub(crate) fn push(&self, layout: &Path, tag: &str, name: &str) {
        let copy = Cmd::line("skopeo copy --quiet --dest-tls-verify=false --preserve-digests");
        let source = format!("oci:{}:{tag}", layout.display());
        let copy = copy.arg("--insecure-policy").arg(source);
        copy.arg(format!("docker://{}/{name}", self.host)).run().success();
    }

    /// The digest of what a name stands for there, as skopeo sees it.
    pub(crate) fn digest(&self, name: &str) -> String {
        let inspect = Cmd::line("skopeo inspect --tls-verify=false --format {{.Digest}}");
        let inspect = inspect.args(["--creds", &format!("{USER}:{PASSWORD}"), "--no-tags"]);
        inspect.arg(format!("docker://{}/{name}", self.host)).run().success().word().to_owned()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Free when asked; nothing else on this machine takes ports of loopback at random.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// An authority of the test's own in `certificates`, and what it says of 127.0.0.1 in `dir`.
fn make_certificates(dir: &Path, certificates: &Path) {
    requires::program("openssl", "openssl");
    fs::create_dir_all(certificates).unwrap();
    let script = "set -e
        new='req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
        openssl $new -x509 -days 2 -subj /CN=tests -keyout ca.key -out \"$0/ca.crt\"
        openssl $new -subj /CN=127.0.0.1 -keyout server.key -out server.csr
        printf 'subjectAltName=IP:127.0.0.1,DNS:localhost' > san
        openssl x509 -req -days 2 -in server.csr -CA \"$0/ca.crt\" -CAkey ca.key \
            -CAcreateserial -extfile san -out server.crt
        openssl $new -subj /CN=client -keyout client.key -out client.csr
        openssl x509 -req -days 2 -in client.csr -CA \"$0/ca.crt\" -CAkey ca.key \
            -CAcreateserial -out old.cert
        printf extendedKeyUsage=clientAuth > usage
        openssl x509 -req -days 2 -in client.csr -CA \"$0/ca.crt\" -CAkey ca.key \
            -CAcreateserial -extfile usage -out client.cert
        cp \"$0/ca.crt\" .";
    let made = Cmd::new("sh").args(["-c", script]).arg(certificates).dir(dir).run();
    made.success();
}
