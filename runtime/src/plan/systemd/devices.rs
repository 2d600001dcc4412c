//! Device rules as systemd's `DevicePolicy` and `DeviceAllow`. Our own filter is what counts;
//! systemd's must let through what ours does, or the container loses devices when systemd applies
//! its own again (`systemctl daemon-reload`).

use super::Property;
use crate::dbus::value::Value;
use crate::plan::cgroup::Mode;
use crate::plan::cgroup::devices::{Access, Device, DevicePlan, Kind};

/// The two properties, and a warning where they say less than the rules.
pub(super) fn properties(plan: &DevicePlan, mode: Mode) -> (Vec<Property>, Option<String>) {
    if plan.allows_all() {
        return (open(), None);
    }
    let entries: Vec<Option<Value>> = if plan.default_allow {
        vec![None]
    } else {
        let allow = |(device, access): &(Device, Access)| {
            let access = Value::String(format!("{access}"));
            specifier(device).map(|path| Value::Struct(vec![Value::String(path), access]))
        };
        plan.exceptions.iter().map(allow).collect()
    };
    let all = entries.iter().all(Option::is_some);
    if !all && mode == Mode::V2 {
        // Filters add up in v2: ours goes on denying what systemd's has no words for.
        return (open(), None);
    }
    let entries = entries.into_iter().flatten().collect();
    let warning = "systemd has no words for some device rules: after `systemctl daemon-reload` \
                   it denies those devices";
    (strict(entries), (!all).then(|| warning.to_owned()))
}

fn open() -> Vec<Property> {
    vec![allow(Vec::new()), Property::new("DevicePolicy", Value::string("auto"))]
}

/// An assignment of nothing voids earlier ones.
fn strict(entries: Vec<Value>) -> Vec<Property> {
    let policy = Property::new("DevicePolicy", Value::string("strict"));
    vec![allow(Vec::new()), policy, allow(entries)]
}

fn allow(entries: Vec<Value>) -> Property {
    Property::new("DeviceAllow", Value::Array("(ss)".to_owned(), entries))
}

/// systemd.resource-control(5), since version 240 (older ones look for the file); there is nothing
/// for one minor number of any major.
fn specifier(device: &Device) -> Option<String> {
    let kind = match device.kind {
        Kind::Block => "block",
        Kind::Char => "char",
    };
    match (device.major, device.minor) {
        (Some(major), Some(minor)) => Some(format!("/dev/{kind}/{major}:{minor}")),
        (Some(major), None) => Some(format!("{kind}-{major}")),
        (None, None) => Some(format!("{kind}-*")),
        (None, Some(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::resources::DeviceRule;

    fn planned(rules: &str, mode: Mode) -> (String, usize, bool) {
        let rules: Vec<DeviceRule> = serde_json::from_str(rules).unwrap();
        let plan = DevicePlan::for_container(&rules).unwrap();
        let (properties, warning) = properties(&plan, mode);
        let Value::String(policy) = &properties[1].value else { panic!() };
        let allowed = match properties.get(2).map(|property| &property.value) {
            Some(Value::Array(_, entries)) => entries.len(),
            _ => 0,
        };
        (policy.clone(), allowed, warning.is_some())
    }

    #[test]
    fn rules_become_what_systemd_knows() {
        let strict = |count, warned| ("strict".to_owned(), count, warned);
        let open = ("auto".to_owned(), 0, false);
        assert_eq!(planned("[]", Mode::V2), strict(11, false));
        let some = r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":10,"minor":229,"access":"rw"}]"#;
        assert_eq!(planned(some, Mode::V1), strict(12, false));
        assert_eq!(planned(r#"[{"allow":true,"access":"rwm"}]"#, Mode::V1), open);
        let deny = r#"[{"allow":true,"access":"rwm"},
            {"allow":false,"type":"b","major":8,"minor":0,"access":"rwm"}]"#;
        assert_eq!(planned(deny, Mode::V1), strict(0, true));
        assert_eq!(planned(deny, Mode::V2), open);
        let any_major = r#"[{"allow":true,"type":"c","minor":3,"access":"r"}]"#;
        assert_eq!(planned(any_major, Mode::Hybrid), strict(11, true));
        assert_eq!(planned(any_major, Mode::V2), open);
    }

    #[test]
    fn devices_are_named_as_the_manual_has_it() {
        let device = |major, minor| Device { kind: Kind::Char, major, minor };
        assert_eq!(specifier(&device(Some(1), Some(3))).unwrap(), "/dev/char/1:3");
        assert_eq!(specifier(&device(Some(136), None)).unwrap(), "char-136");
        assert_eq!(specifier(&device(None, None)).unwrap(), "char-*");
        assert_eq!(specifier(&device(None, Some(3))), None);
    }
}
