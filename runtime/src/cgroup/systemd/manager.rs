//! What we say to systemd, the system's or the user's, over its bus.
//! <https://www.freedesktop.org/software/systemd/man/latest/org.freedesktop.systemd1.html>

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, bail};

use crate::dbus::address::{self, Address};
use crate::dbus::message::{Call, Message};
use crate::dbus::value::Value;
use crate::dbus::{CallError, Connection};
use crate::plan::systemd::Property;

const NAME: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// As long as runc waits for systemd.
const PATIENCE: Duration = Duration::from_secs(30);
/// To take back what systemd did not do in that time.
const LAST_PATIENCE: Duration = Duration::from_secs(5);

const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";
const SYSTEM_PRIVATE: &str = "/run/systemd/private";
/// There while systemd is the first process: sd_booted(3).
const BOOTED: &str = "/run/systemd/system";

/// A connection to systemd.
#[derive(Debug)]
pub(super) struct Manager {
    connection: Connection,
    /// Through a bus, which has to be told which signals we want.
    brokered: bool,
    /// systemd's major version.
    pub(super) version: u32,
}

impl AsFd for Manager {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

impl Manager {
    /// Connects to the user's systemd or to the system's: through the bus, or directly where
    /// there is none.
    pub(super) fn connect(user: bool) -> Result<Self> {
        let mut failures = Vec::new();
        match buses(user, |name| std::env::var_os(name)) {
            Ok(buses) => {
                for (address, brokered) in buses {
                    match Self::open(&address, brokered) {
                        Ok(manager) => return Ok(manager),
                        Err(error) => failures.push(crate::error::render(&error)),
                    }
                }
            }
            Err(error) => failures.push(crate::error::render(&error)),
        }
        let failures = failures.join("; ");
        if user {
            bail!(
                "can't reach the systemd of this user: {failures} (log in, or enable lingering with \
                 loginctl, and install dbus-user-session; or run without --systemd-cgroup)"
            );
        }
        if !Path::new(BOOTED).exists() {
            bail!(
                "systemd cgroup flag passed, but systemd support for managing cgroups is not \
                 available: {failures} (this host is not run by systemd: leave --systemd-cgroup out)"
            );
        }
        bail!("can't reach systemd: {failures} (is dbus running?)");
    }

    fn open(address: &Address, brokered: bool) -> Result<Self> {
        let owner = rustix::process::geteuid().as_raw();
        let mut connection = Connection::open(address, owner, PATIENCE)?;
        if brokered {
            connection.hello()?;
        }
        let mut manager = Manager { connection, brokered, version: 0 };
        let version = manager.property("Version")?;
        manager.version = major(&version)
            .with_context(|| format!("systemd at {address} calls its version {version:?}"))?;
        Ok(manager)
    }

    /// The cgroup that the manager's own slices are in.
    pub(super) fn control_group(&mut self) -> Result<String> {
        self.property("ControlGroup")
    }

    /// Starts a unit and waits until systemd is through with it.
    pub(super) fn start(&mut self, unit: &str, properties: Vec<Property>) -> Result<()> {
        let arguments = vec![
            Value::string(unit),
            Value::string("replace"),
            assignments(properties),
            Value::Array("(sa(sv))".to_owned(), Vec::new()),
        ];
        self.connection.set_deadline(PATIENCE);
        self.watch(unit)?;
        let job = match self.call("StartTransientUnit", arguments.clone()) {
            // What is left of one that failed goes when its failure is forgotten.
            Err(error) if is(&error, UNIT_EXISTS) => {
                self.reset_failed(unit)?;
                self.call("StartTransientUnit", arguments)?
            }
            other => other?,
        };
        let failure = match self.result(&job) {
            Ok(result) if result == "done" => return Ok(()),
            Ok(result) => anyhow!("error creating systemd unit `{unit}`: got `{result}`"),
            Err(error) => error.context(format!("wait for systemd to create {unit}")),
        };
        self.connection.set_deadline(LAST_PATIENCE);
        let arguments = vec![Value::string(unit), Value::string("replace")];
        let taken_back = self.call("StopUnit", arguments).map(drop);
        Err(match taken_back.or_else(forgive_absence).and_then(|()| self.reset_failed(unit)) {
            Ok(()) => failure,
            Err(also) => failure.context(format!("{also:#}")),
        })
    }

    /// Stops a unit and waits until it has ended; one that is gone already is no error.
    pub(super) fn stop(&mut self, unit: &str) -> Result<()> {
        self.connection.set_deadline(PATIENCE);
        self.watch(unit)?;
        match self.call("StopUnit", vec![Value::string(unit), Value::string("replace")]) {
            Ok(job) => {
                // Whatever the result is called: what is left shows when its cgroup is removed.
                self.result(&job).with_context(|| format!("wait for systemd to remove {unit}"))?;
            }
            Err(error) => forgive_absence(error)?,
        }
        self.reset_failed(unit)
    }

    /// Changes properties until the next boot.
    pub(super) fn set_properties(&mut self, unit: &str, properties: Vec<Property>) -> Result<()> {
        self.connection.set_deadline(PATIENCE);
        let arguments = vec![Value::string(unit), Value::Bool(true), assignments(properties)];
        self.call("SetUnitProperties", arguments).map(drop).context("unable to set unit properties")
    }

    /// Moves a process into the unit's cgroup, or into one beneath it.
    pub(super) fn attach(&mut self, unit: &str, beneath: &str, pid: u32) -> Result<()> {
        self.connection.set_deadline(PATIENCE);
        let pids = Value::Array("u".to_owned(), vec![Value::Uint32(pid)]);
        let arguments = vec![Value::string(unit), Value::string(beneath), pids];
        self.call("AttachProcessesToUnit", arguments).map(drop)
    }

    /// A unit that has failed stays, with its name, until this.
    fn reset_failed(&mut self, unit: &str) -> Result<()> {
        let reset = self.call("ResetFailedUnit", vec![Value::string(unit)]).map(drop);
        reset.or_else(forgive_absence)
    }

    fn property(&mut self, name: &str) -> Result<String> {
        let call = Call {
            destination: NAME,
            path: PATH,
            interface: PROPERTIES,
            member: "Get",
            arguments: vec![Value::string(MANAGER), Value::string(name)],
        };
        let answer = self.connection.call(&call).with_context(|| format!("ask for its {name}"))?;
        answer.text()?.with_context(|| format!("systemd's {name} is no text"))
    }

    fn call(&mut self, member: &'static str, arguments: Vec<Value>) -> Result<Message> {
        let call = Call { destination: NAME, path: PATH, interface: MANAGER, member, arguments };
        self.connection.call(&call).with_context(|| format!("systemd: {member}"))
    }

    /// Asks for the end of jobs of one unit: of all of them there may be many on a busy host.
    fn watch(&mut self, unit: &str) -> Result<()> {
        if !self.brokered {
            return Ok(());
        }
        let unit = unit.replace('\'', "");
        self.connection.add_match(&format!(
            "type='signal',sender='{NAME}',path='{PATH}',interface='{MANAGER}',\
             member='JobRemoved',arg2='{unit}'"
        ))
    }

    /// Waits for the end of the job that `answer` names, and tells its result.
    fn result(&mut self, answer: &Message) -> Result<String> {
        let job = answer.text()?.context("systemd named no job")?;
        loop {
            let signal = self.connection.signal()?;
            // Anybody on a bus may send anybody a signal; the sender can't be forged.
            if signal.member != "JobRemoved" || signal.sender != answer.sender {
                continue;
            }
            if let [_, Value::ObjectPath(path), _, Value::String(result)] = &signal.arguments()?[..]
                && *path == job
            {
                return Ok(result.clone());
            }
        }
    }
}

fn assignments(properties: Vec<Property>) -> Value {
    let properties = properties.into_iter().map(Property::into_value).collect();
    Value::Array("(sv)".to_owned(), properties)
}

fn is(error: &Error, name: &str) -> bool {
    error.downcast_ref::<CallError>().is_some_and(|error| error.name == name)
}

fn forgive_absence(error: Error) -> Result<()> {
    if is(&error, NO_SUCH_UNIT) { Ok(()) } else { Err(error) }
}

/// Where systemd may be reached, best first, and whether a bus is between.
fn buses(user: bool, variable: impl Fn(&str) -> Option<OsString>) -> Result<Vec<(Address, bool)>> {
    let variable = |name| variable(name).filter(|value| !value.is_empty());
    let name = if user { "DBUS_SESSION_BUS_ADDRESS" } else { "DBUS_SYSTEM_BUS_ADDRESS" };
    let mut buses = Vec::new();
    if let Some(given) = variable(name) {
        let given = given.into_string().map_err(|_| anyhow!("{name} is not UTF-8"))?;
        buses.extend(address::parse(&given).context(name)?.into_iter().map(|it| (it, true)));
    }
    if !user {
        if buses.is_empty() {
            buses.push((Address::Path(SYSTEM_BUS.into()), true));
        }
        buses.push((Address::Path(SYSTEM_PRIVATE.into()), false));
        return Ok(buses);
    }
    if let Some(directory) = variable("XDG_RUNTIME_DIR").map(PathBuf::from) {
        if buses.is_empty() {
            buses.push((Address::Path(directory.join("bus")), true));
        }
        buses.push((Address::Path(directory.join("systemd/private")), false));
    }
    if buses.is_empty() {
        bail!("neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR is set");
    }
    Ok(buses)
}

/// `252.39-1~deb12u1`, `v245.4-1.fc32`
fn major(version: &str) -> Option<u32> {
    let digits = version.trim_start_matches(['"', 'v']);
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(user: bool, variables: &[(&str, &str)]) -> Result<Vec<String>> {
        let variable = |name: &str| {
            let known = variables.iter().find(|(known, _)| *known == name);
            known.map(|(_, value)| OsString::from(value))
        };
        let show = |(address, brokered): (Address, bool)| {
            format!("{address}{}", if brokered { "" } else { " direct" })
        };
        Ok(buses(user, variable)?.into_iter().map(show).collect())
    }

    #[test]
    fn buses_are_where_they_always_are_unless_the_environment_says_otherwise() {
        let private = "/run/systemd/private direct";
        assert_eq!(found(false, &[]).unwrap(), [SYSTEM_BUS, private]);
        let given = ("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/b");
        assert_eq!(found(false, &[given]).unwrap(), ["/b", private]);
        let runtime = ("XDG_RUNTIME_DIR", "/r");
        let given = ("DBUS_SESSION_BUS_ADDRESS", "unix:abstract=x;unix:path=/b");
        assert_eq!(found(true, &[runtime]).unwrap(), ["/r/bus", "/r/systemd/private direct"]);
        assert_eq!(
            found(true, &[runtime, given]).unwrap(),
            ["@x", "/b", "/r/systemd/private direct"]
        );
        assert!(found(true, &[("XDG_RUNTIME_DIR", "")]).is_err());
        assert!(found(true, &[("DBUS_SESSION_BUS_ADDRESS", "tcp:"), runtime]).is_err());
    }

    #[test]
    fn versions_begin_with_a_number() {
        for (text, version) in [
            ("252.39-1~deb12u1", Some(252)),
            ("v245.4-1.fc32", Some(245)),
            ("\"v245-1.fc32\"", Some(245)),
            ("255", Some(255)),
            ("v", None),
        ] {
            assert_eq!(major(text), version, "{text}");
        }
    }
}
