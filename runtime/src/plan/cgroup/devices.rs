//! The spec's list of device rules, boiled down to a default and its exceptions: what cgroup v1
//! keeps, and what the v2 program is made from, so that both mean the same.

use std::fmt;

use anyhow::{Context, Result, bail};

use crate::spec::resources::DeviceRule;

/// A default, and the accesses to which the opposite applies.
#[derive(Debug, Clone, Default)]
pub(crate) struct DevicePlan {
    pub(crate) default_allow: bool,
    /// Each device once, in the order of the rules that named them first: what is applied in that
    /// order shows in it in `devices.list`. It makes no difference to what is allowed.
    pub(crate) exceptions: Vec<(Device, Access)>,
}

/// A device or a group of them; absent numbers match all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) major: Option<u32>,
    pub(crate) minor: Option<u32>,
    pub(crate) kind: Kind,
}

/// Block or character device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Block,
    Char,
}

/// Set of accesses, with the bits of the kernel's `BPF_DEVCG_ACC_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Access(u8);

/// One line for `devices.allow` or `devices.deny`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transition {
    pub(crate) allow: bool,
    pub(crate) line: String,
}

/// Allowed in every container, as runc does: to make any node (not to open it), and the devices
/// that the spec promises; the terminals; tun, which is in a network namespace anyway.
const DEFAULT_ALLOWED: [(Device, Access); 11] = [
    (Device { kind: Kind::Char, major: None, minor: None }, Access::MKNOD),
    (Device { kind: Kind::Block, major: None, minor: None }, Access::MKNOD),
    (Device::char(1, Some(3)), Access::ALL),    // null
    (Device::char(1, Some(5)), Access::ALL),    // zero
    (Device::char(1, Some(7)), Access::ALL),    // full
    (Device::char(1, Some(8)), Access::ALL),    // random
    (Device::char(1, Some(9)), Access::ALL),    // urandom
    (Device::char(5, Some(0)), Access::ALL),    // tty
    (Device::char(5, Some(2)), Access::ALL),    // ptmx
    (Device::char(136, None), Access::ALL),     // pts
    (Device::char(10, Some(200)), Access::ALL), // tun
];

/// Equal are those that allow the same.
impl PartialEq for DevicePlan {
    fn eq(&self, other: &Self) -> bool {
        self.default_allow == other.default_allow
            && self.exceptions.len() == other.exceptions.len()
            && self.exceptions.iter().all(|(device, access)| other.access(device) == *access)
    }
}

impl Eq for DevicePlan {}

impl DevicePlan {
    /// The spec's rules in their order, then the default ones.
    pub(crate) fn for_container(rules: &[DeviceRule]) -> Result<Self> {
        let mut plan = Self::default();
        for (index, rule) in rules.iter().enumerate() {
            plan.add(index, rule).with_context(|| format!("linux.resources.devices[{index}]"))?;
        }
        for (device, access) in DEFAULT_ALLOWED {
            plan.change(true, device, access).context("linux.resources.devices")?;
        }
        Ok(plan)
    }

    /// The state that the text of `devices.list` shows. In the deny-list mode it shows no more
    /// than that everything is allowed.
    pub(crate) fn from_list(text: &str) -> Result<Self> {
        let mut plan = Self::default();
        for line in text.lines() {
            let wrong = || format!("parse devices.list line {line:?}");
            let mut words = line.split([' ', ':']);
            let (Some(kind), Some(major), Some(minor), Some(access), None) =
                (words.next(), words.next(), words.next(), words.next(), words.next())
            else {
                bail!(wrong());
            };
            let Some(kind) = Kind::parse(kind).with_context(wrong)? else {
                return Ok(Self { default_allow: true, ..Self::default() });
            };
            let device = Device {
                kind,
                major: parse_number(major).with_context(wrong)?,
                minor: parse_number(minor).with_context(wrong)?,
            };
            plan.change(true, device, Access::parse(access).with_context(wrong)?)?;
        }
        Ok(plan)
    }

    /// True if nothing is denied.
    pub(crate) fn allows_all(&self) -> bool {
        self.default_allow && self.exceptions.is_empty()
    }

    /// The lines that lead from here to `target`, disturbing no device that both allow.
    pub(crate) fn transitions(&self, target: &Self) -> Vec<Transition> {
        let none = Self::default();
        let mut lines = Vec::new();
        // A deny list can't be read back, so it is never a known starting point.
        let old = if self.default_allow || self.default_allow != target.default_allow {
            lines.push(Transition { allow: target.default_allow, line: "a *:* rwm".to_owned() });
            &none
        } else {
            self
        };
        for (device, access) in &old.exceptions {
            let dropped = access.without(target.access(device));
            if !dropped.is_empty() {
                let line = format!("{device} {dropped}");
                lines.push(Transition { allow: target.default_allow, line });
            }
        }
        for (device, access) in &target.exceptions {
            let gained = access.without(old.access(device));
            if !gained.is_empty() {
                let line = format!("{device} {gained}");
                lines.push(Transition { allow: !target.default_allow, line });
            }
        }
        lines
    }

    fn access(&self, device: &Device) -> Access {
        let known = self.exceptions.iter().find(|(known, _)| known == device);
        known.map(|(_, access)| *access).unwrap_or_default()
    }

    fn add(&mut self, index: usize, rule: &DeviceRule) -> Result<()> {
        if rule.access.is_empty() {
            bail!("device access at {index} field cannot be empty");
        }
        let access = Access::parse(&rule.access)
            .with_context(|| format!("invalid device access at {index}"))?;
        let Some(kind) = Kind::parse(&rule.kind)? else {
            // All devices: whatever was said before is void, numbers and access are ignored.
            *self = Self { default_allow: rule.allow, ..Self::default() };
            return Ok(());
        };
        let number = |name: &str, number: Option<i64>| match number {
            None | Some(-1) => Ok(None),
            Some(number) => u32::try_from(number)
                .map(Some)
                .with_context(|| format!("invalid {name} number {number} of device rule {index}")),
        };
        let device = Device {
            kind,
            major: number("major", rule.major)?,
            minor: number("minor", rule.minor)?,
        };
        self.change(rule.allow, device, access)
    }

    fn change(&mut self, allow: bool, device: Device, access: Access) -> Result<()> {
        let known = self.exceptions.iter().position(|(known, _)| *known == device);
        if allow != self.default_allow {
            match known {
                Some(at) => self.exceptions[at].1.0 |= access.0,
                None => self.exceptions.push((device, access)),
            }
            return Ok(());
        }
        self.refuse_hole(device, access)?;
        if let Some(at) = known {
            let left = self.exceptions[at].1.without(access);
            if left.is_empty() {
                self.exceptions.remove(at);
            } else {
                self.exceptions[at].1 = left;
            }
        }
        Ok(())
    }

    /// v1 ignores, without a word, the removal of a part of a wildcard exception; whoever wrote
    /// the rule would think the device closed.
    fn refuse_hole(&self, device: Device, access: Access) -> Result<()> {
        let wider = [
            Device { major: None, ..device },
            Device { minor: None, ..device },
            Device { major: None, minor: None, ..device },
        ];
        for wide in wider.into_iter().filter(|wide| *wide != device) {
            let known = self.access(&wide);
            if known.0 & access.0 != 0 {
                let exception = if self.default_allow { "deny" } else { "allow" };
                bail!(
                    "unable to remove '{exception}' exception: requested rule [{device} {access}] \
                     not supported by devices cgroupv1 (cannot punch hole in existing wildcard \
                     rule [{wide} {known}])"
                );
            }
        }
        Ok(())
    }
}

impl Device {
    const fn char(major: u32, minor: Option<u32>) -> Self {
        Self { kind: Kind::Char, major: Some(major), minor }
    }
}

impl Kind {
    /// `None` is every kind.
    fn parse(text: &str) -> Result<Option<Self>> {
        match text {
            "a" | "" => Ok(None),
            "b" => Ok(Some(Self::Block)),
            "c" => Ok(Some(Self::Char)),
            _ => bail!("invalid cgroup device type {text:?}"),
        }
    }
}

impl Access {
    const MKNOD: Self = Self(1);
    pub(crate) const ALL: Self = Self(7);

    pub(crate) fn bits(self) -> u8 {
        self.0
    }

    fn parse(text: &str) -> Result<Self> {
        let mut bits = 0;
        for letter in text.chars() {
            bits |= match letter {
                'm' => 1,
                'r' => 2,
                'w' => 4,
                // runc takes it, and makes nothing of it.
                'a' => 0,
                _ => bail!("unknown access {letter:?} in {text:?}"),
            };
        }
        Ok(Self(bits))
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

fn parse_number(text: &str) -> Result<Option<u32>> {
    if text == "*" {
        return Ok(None);
    }
    Ok(Some(text.parse()?))
}

impl fmt::Display for Device {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Block => 'b',
            Kind::Char => 'c',
        };
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |it| it.to_string());
        write!(out, "{kind} {}:{}", number(self.major), number(self.minor))
    }
}

impl fmt::Display for Access {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (bit, letter) in [(2, "r"), (4, "w"), (1, "m")] {
            if self.0 & bit != 0 {
                out.write_str(letter)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(allow: bool, kind: &str, numbers: (i64, i64), access: &str) -> DeviceRule {
        DeviceRule {
            allow,
            kind: kind.to_owned(),
            major: Some(numbers.0),
            minor: Some(numbers.1),
            access: access.to_owned(),
        }
    }

    fn emulate(rules: &[DeviceRule]) -> Result<DevicePlan> {
        let mut plan = DevicePlan::default();
        for (index, rule) in rules.iter().enumerate() {
            plan.add(index, rule)?;
        }
        Ok(plan)
    }

    fn lines(plan: &DevicePlan) -> Vec<String> {
        plan.exceptions.iter().map(|(device, access)| format!("{device} {access}")).collect()
    }

    #[test]
    fn no_rules_allow_the_default_devices_only() {
        let plan = DevicePlan::for_container(&[]).unwrap();
        assert!(!plan.default_allow);
        let expected = [
            "c *:* m",
            "b *:* m",
            "c 1:3 rwm",
            "c 1:5 rwm",
            "c 1:7 rwm",
            "c 1:8 rwm",
            "c 1:9 rwm",
            "c 5:0 rwm",
            "c 5:2 rwm",
            "c 136:* rwm",
            "c 10:200 rwm",
        ];
        assert_eq!(lines(&plan), expected);
    }

    #[test]
    fn privileged_containers_need_no_program() {
        let plan = DevicePlan::for_container(&[rule(true, "a", (-1, -1), "rwm")]).unwrap();
        assert!(plan.allows_all());
    }

    #[test]
    fn a_rule_for_all_devices_voids_what_was_said_before() {
        let plan = emulate(&[
            rule(true, "c", (1, 3), "rw"),
            rule(false, "", (7, 7), "r"),
            rule(true, "b", (8, -1), "r"),
            rule(true, "b", (8, -1), "w"),
            rule(true, "c", (1, 3), "rwm"),
            rule(false, "c", (1, 3), "m"),
        ])
        .unwrap();
        assert_eq!(lines(&plan), ["b 8:* rw", "c 1:3 rw"]);
    }

    #[test]
    fn exceptions_keep_the_order_of_the_rules() {
        let plan = emulate(&[
            rule(true, "c", (10, 229), "r"),
            rule(true, "b", (8, 20), "rw"),
            rule(true, "c", (1, 3), "rw"),
            rule(true, "c", (10, 229), "wm"),
        ])
        .unwrap();
        assert_eq!(lines(&plan), ["c 10:229 rwm", "b 8:20 rw", "c 1:3 rw"]);
        let list = |text| DevicePlan::from_list(text).unwrap();
        assert_eq!(plan, list("c 1:3 rw\nb 8:20 rw\nc 10:229 rwm\n"));
        assert_ne!(plan, list("c 1:3 rw\nb 8:20 rw\nc 10:229 rw\n"));
        assert_ne!(plan, list("c 1:3 rw\nb 8:20 rw\n"));
    }

    #[test]
    fn holes_in_wildcards_are_refused() {
        let error = emulate(&[rule(true, "c", (-1, -1), "rwm"), rule(false, "c", (1, 5), "w")])
            .unwrap_err();
        assert!(error.to_string().contains(
            "requested rule [c 1:5 w] not supported by devices cgroupv1 \
             (cannot punch hole in existing wildcard rule [c *:* rwm])"
        ));
    }

    #[test]
    fn wrong_rules_are_named() {
        for (bad, text) in [
            (rule(true, "c", (1, 3), ""), "device access at 0 field cannot be empty"),
            (rule(true, "p", (1, 3), "r"), "invalid cgroup device type \"p\""),
            (rule(true, "c", (-2, 3), "r"), "invalid major number -2 of device rule 0"),
            (rule(true, "c", (1, 1 << 32), "r"), "invalid minor number 4294967296"),
            (rule(true, "c", (1, 3), "rx"), "invalid device access at 0"),
        ] {
            assert!(emulate(&[bad]).unwrap_err().to_string().starts_with(text), "{text}");
        }
    }

    #[test]
    fn transitions_touch_only_what_differs() {
        let current = DevicePlan::from_list("c 1:3 rwm\nb 8:* rw\nc 1:5 rm\n").unwrap();
        let target = DevicePlan::from_list("c 1:3 rwm\nc 1:5 rw\nc 5:2 rwm\n").unwrap();
        let deny = |line: &str| Transition { allow: false, line: line.to_owned() };
        let allow = |line: &str| Transition { allow: true, line: line.to_owned() };
        assert_eq!(
            current.transitions(&target),
            [deny("b 8:* rw"), deny("c 1:5 m"), allow("c 1:5 w"), allow("c 5:2 rwm")]
        );
        let all = DevicePlan::from_list("a *:* rwm\n").unwrap();
        assert_eq!(all.transitions(&current)[0], deny("a *:* rwm"));
        assert_eq!(current.transitions(&all), [allow("a *:* rwm")]);
        assert!(DevicePlan::from_list("c 1:3\n").is_err());
    }
}
