//! A container as a unit of systemd: names, where its cgroup will be, and the properties to ask
//! for. Pure; the bus is `cgroup::systemd`'s.

use anyhow::{Result, bail};

use super::cgroup::Mode;
use crate::dbus::value::Value;

pub(crate) mod annotations;
mod cpus;
mod devices;
mod gvariant;
pub(crate) mod limits;
mod unified;

const SLICE: &str = ".slice";

/// A property of a unit.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Property {
    pub(crate) name: String,
    pub(crate) value: Value,
}

impl Property {
    pub(crate) fn new(name: &str, value: Value) -> Self {
        Property { name: name.to_owned(), value }
    }

    /// As `StartTransientUnit` and `SetUnitProperties` take it, "(sv)".
    pub(crate) fn into_value(self) -> Value {
        Value::Struct(vec![Value::String(self.name), Value::variant(self.value)])
    }
}

/// A scope, or a slice if the name says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    /// `runc-ID.scope`
    pub(crate) name: String,
    /// The slice that it is to be in.
    pub(crate) slice: String,
    /// Where its cgroup is beneath the manager's own: `/system.slice/runc-ID.scope`
    pub(crate) path: String,
    /// The container's name in it.
    container: String,
}

impl Unit {
    /// `cgroups_path` is of the form `SLICE:PREFIX:NAME`; absent, everything has its default.
    pub(crate) fn plan(
        cgroups_path: Option<&str>,
        id: &str,
        program: &str,
        user: bool,
    ) -> Result<Self> {
        let (slice, prefix, container) = match cgroups_path.filter(|path| !path.is_empty()) {
            None => ("", program, id),
            Some(path) => {
                let parts: Vec<&str> = path.split(':').collect();
                let [slice, prefix, name] = parts[..] else {
                    bail!(
                        "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd \
                         cgroups, got {path:?} instead"
                    );
                };
                (slice, prefix, name)
            }
        };
        let slice = match (slice, user) {
            ("", false) => "system.slice",
            ("", true) => "user.slice",
            (given, _) => given,
        };
        let name = if container.ends_with(SLICE) {
            container.to_owned()
        } else {
            format!("{prefix}-{container}.scope")
        };
        check_name(&name)?;
        let mut path = expand_slice(slice)?;
        path.push('/');
        path.push_str(&name);
        Ok(Unit { name, slice: slice.to_owned(), path, container: container.to_owned() })
    }

    pub(crate) fn is_slice(&self) -> bool {
        self.name.ends_with(SLICE)
    }

    /// What every unit gets. Accounting is always on: joining the memory controller later would
    /// leave out what was used before.
    pub(crate) fn properties(&self, pid: u32, mode: Mode) -> Vec<Property> {
        let description = format!("libcontainer container {}", self.container);
        let mut properties = vec![Property::new("Description", Value::String(description))];
        if self.is_slice() {
            // Its process is moved in afterwards: systemd takes none for a slice.
            properties.push(Property::new("Wants", Value::strings([self.slice.clone()])));
        } else {
            let pids = Value::Array("u".to_owned(), vec![Value::Uint32(pid)]);
            properties.push(Property::new("Slice", Value::string(self.slice.clone())));
            properties.push(Property::new("Delegate", Value::Bool(true)));
            properties.push(Property::new("PIDs", pids));
        }
        let io = if mode == Mode::V2 { "IOAccounting" } else { "BlockIOAccounting" };
        for accounting in ["MemoryAccounting", "CPUAccounting", io, "TasksAccounting"] {
            properties.push(Property::new(accounting, Value::Bool(true)));
        }
        // Otherwise it would be stopped before the services that it is a part of.
        properties.push(Property::new("DefaultDependencies", Value::Bool(false)));
        properties
    }
}

/// systemd(5) on names of units; it would refuse others, but less clearly, and a slash would lead
/// out of the slice.
fn check_name(name: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    if name.len() > 255 || !name.chars().all(allowed) {
        bail!(
            "cgroupsPath makes {name:?} the unit's name; systemd allows up to 255 letters, digits \
             and \":-_.\\@\""
        );
    }
    Ok(())
}

/// A slice is beneath those that its name begins with: `a-b.slice` is `/a.slice/a-b.slice`.
fn expand_slice(slice: &str) -> Result<String> {
    let invalid = || format!("invalid slice name: {slice}");
    let Some(stem) = slice.strip_suffix(SLICE) else { bail!(invalid()) };
    if stem == "-" {
        return Ok(String::new());
    }
    let mut path = String::new();
    for (index, _) in stem.match_indices('-').chain([(stem.len(), "")]) {
        let part = &stem[..index];
        if part.is_empty() || part.ends_with('-') || part.contains('/') {
            bail!(invalid());
        }
        path.push('/');
        path.push_str(part);
        path.push_str(SLICE);
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(path: Option<&str>, user: bool) -> Result<Unit> {
        Unit::plan(path, "c1", "runtime", user)
    }

    #[test]
    fn names_have_defaults() {
        for (path, user, name, slice, place) in [
            (None, false, "runtime-c1.scope", "system.slice", "/system.slice/runtime-c1.scope"),
            (Some(""), true, "runtime-c1.scope", "user.slice", "/user.slice/runtime-c1.scope"),
            (Some(":p:n"), false, "p-n.scope", "system.slice", "/system.slice/p-n.scope"),
            (Some("a-b.slice:p:n"), true, "p-n.scope", "a-b.slice", "/a.slice/a-b.slice/p-n.scope"),
            (Some("-.slice:p:n"), false, "p-n.scope", "-.slice", "/p-n.scope"),
            (Some("a.slice::a-x.slice"), false, "a-x.slice", "a.slice", "/a.slice/a-x.slice"),
            (
                Some("a.slice:p:x.scope"),
                false,
                "p-x.scope.scope",
                "a.slice",
                "/a.slice/p-x.scope.scope",
            ),
        ] {
            let unit = unit(path, user).unwrap();
            let found = (unit.name.as_str(), unit.slice.as_str(), unit.path.as_str());
            assert_eq!(found, (name, slice, place), "{path:?}");
        }
    }

    #[test]
    fn other_forms_are_refused() {
        let error = unit(Some("/a/b"), false).unwrap_err().to_string();
        assert_eq!(
            error,
            "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \
             \"/a/b\" instead"
        );
        for bad in [
            "a.slice:b",
            "a:b:c:d",
            "a:p:n",
            "a--b.slice:p:n",
            "-a.slice:p:n",
            ".slice:p:n",
            "a-.slice:p:n",
            "../x.slice:p:n",
            "a.slice:p:../n",
            "a.slice:p/q:n",
            "a.slice:p:n o",
        ] {
            assert!(unit(Some(bad), false).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_slice_is_wanted_and_a_scope_is_within() {
        let names = |unit: &Unit, mode| -> Vec<String> {
            unit.properties(7, mode).into_iter().map(|property| property.name).collect()
        };
        let scope = names(&unit(None, false).unwrap(), Mode::V2);
        assert_eq!(
            scope,
            [
                "Description",
                "Slice",
                "Delegate",
                "PIDs",
                "MemoryAccounting",
                "CPUAccounting",
                "IOAccounting",
                "TasksAccounting",
                "DefaultDependencies"
            ]
        );
        let slice = names(&unit(Some("a.slice:p:a-b.slice"), false).unwrap(), Mode::V1);
        assert!(slice.contains(&"Wants".to_owned()) && !slice.contains(&"PIDs".to_owned()));
        assert!(slice.contains(&"BlockIOAccounting".to_owned()));
    }
}
