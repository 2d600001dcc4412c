//! CRIU's requests and answers, by the numbers of its `rpc.proto`.

use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, Result};

use super::protobuf::{Value, Writer, fields};
use crate::plan::criu::Options;

/// The most that CRIU says of what it does.
const LOG_LEVEL: i32 = 4;

/// What is asked, and what an answer is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Dump,
    Restore,
    PreDump,
    /// CRIU tells of a step and waits for our word.
    Notify,
    FeatureCheck,
    Version,
}

impl Kind {
    const NUMBERS: [(Kind, i32); 6] = [
        (Kind::Dump, 1),
        (Kind::Restore, 2),
        (Kind::PreDump, 4),
        (Kind::Notify, 6),
        (Kind::FeatureCheck, 9),
        (Kind::Version, 10),
    ];

    fn number(self) -> i32 {
        Kind::NUMBERS.iter().find(|(kind, _)| *kind == self).map_or(0, |(_, number)| *number)
    }

    fn parse(number: i32) -> Option<Self> {
        Kind::NUMBERS.iter().find(|(_, known)| *known == number).map(|(kind, _)| *kind)
    }

    /// As CRIU and runc spell it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Dump => "DUMP",
            Kind::Restore => "RESTORE",
            Kind::PreDump => "PRE_DUMP",
            Kind::Notify => "NOTIFY",
            Kind::FeatureCheck => "FEATURE_CHECK",
            Kind::Version => "VERSION",
        }
    }
}

/// Something that CRIU and the kernel may be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Feature {
    MemoryTracking,
    LazyPages,
}

impl Feature {
    fn field(self) -> u32 {
        match self {
            Feature::MemoryTracking => 1,
            Feature::LazyPages => 2,
        }
    }

    /// As runc spells it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Feature::MemoryTracking => "MemTrack",
            Feature::LazyPages => "LazyPages",
        }
    }
}

/// `criu_req` without options.
pub(super) fn request(kind: Kind) -> Vec<u8> {
    write(kind, |_| {})
}

/// `criu_req` that asks whether there is this feature.
pub(super) fn feature_request(feature: Feature) -> Vec<u8> {
    write(Kind::FeatureCheck, |request| {
        request.message(5, |features| features.boolean(feature.field(), true));
    })
}

/// `criu_req` that answers a notification.
pub(super) fn notified(success: bool) -> Vec<u8> {
    write(Kind::Notify, |request| request.boolean(3, success))
}

/// `criu_req` with options.
pub(super) fn work_request(kind: Kind, options: &Options) -> Vec<u8> {
    write(kind, |request| request.message(2, |to| write_options(to, options)))
}

fn write(kind: Kind, fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut request = Writer::default();
    request.signed(1, kind.number());
    fill(&mut request);
    request.finish()
}

/// `criu_opts`. What a user can ask for is always said, if only that it is not wanted: what CRIU's
/// own configuration has would count otherwise, with which our flags have nothing to do.
fn write_options(to: &mut Writer, options: &Options) {
    to.signed(1, options.images_dir);
    options.pid.iter().for_each(|pid| to.signed(2, *pid));
    to.boolean(3, options.leave_running);
    to.boolean(4, options.external_unix_sockets);
    to.boolean(5, options.tcp_established);
    options.restoring.then(|| to.boolean(6, true));
    to.boolean(7, options.shell_job);
    to.boolean(8, options.file_locks);
    to.signed(9, LOG_LEVEL);
    to.bytes(10, options.log_file);
    if let Some(server) = &options.page_server {
        to.message(11, |to| {
            to.bytes(1, &server.address);
            to.signed(2, server.port.into());
        });
    }
    // Also of the steps that only a script could do something about.
    to.boolean(12, true);
    to.bytes(13, options.root.as_os_str().as_bytes());
    if let Some(parent) = &options.parent_images {
        to.bytes(14, parent.as_os_str().as_bytes());
        to.boolean(15, true);
    }
    to.boolean(16, options.auto_dedup);
    options.work_dir.iter().for_each(|work| to.signed(17, *work));
    to.boolean(18, options.link_remap);
    for mount in &options.external_mounts {
        to.message(23, |to| {
            to.bytes(1, mount.key.as_os_str().as_bytes());
            to.bytes(2, mount.value.as_os_str().as_bytes());
        });
    }
    to.boolean(24, true);
    for (controller, path) in &options.cgroup_roots {
        to.message(25, |to| {
            to.bytes(1, controller);
            to.bytes(2, path);
        });
    }
    // The container's init is to be our child, not CRIU's.
    options.restoring.then(|| to.boolean(26, true));
    for (key, descriptor) in &options.inherited {
        to.message(27, |to| {
            to.bytes(1, key);
            to.signed(2, *descriptor);
        });
    }
    to.number(34, options.cgroups.number());
    options.external.iter().for_each(|external| to.bytes(37, external));
    to.number(38, options.empty_namespaces);
    for (kind, path) in &options.joined {
        to.message(39, |to| {
            to.bytes(1, kind);
            to.bytes(2, path.as_os_str().as_bytes());
        });
    }
    options.freezer.iter().for_each(|path| to.bytes(44, path.as_os_str().as_bytes()));
    to.boolean(46, options.tcp_skip_in_flight);
    to.boolean(48, options.lazy_pages);
    options.status_fd.iter().for_each(|descriptor| to.signed(49, *descriptor));
    // A terminal's master is handed to us, for whoever asked for the container.
    to.boolean(50, true);
    options.config_file.iter().for_each(|path| to.bytes(51, path));
    options.lsm_profile.iter().for_each(|profile| to.bytes(53, profile));
    options.lsm_mount_context.iter().for_each(|context| to.bytes(63, context));
}

/// `criu_resp`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// `None` is a kind that we never ask for.
    pub(super) kind: Option<Kind>,
    pub(super) success: bool,
    /// Of the restored init, or of the process that a notification is about.
    pub(super) pid: Option<i32>,
    /// The step that a notification tells of.
    pub(super) step: String,
    pub(super) errno: i32,
    pub(super) message: String,
    pub(super) memory_tracking: bool,
    pub(super) lazy_pages: bool,
    pub(super) version: Option<u32>,
}

impl Answer {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let mut answer = Answer::default();
        for (field, value) in fields(bytes)? {
            match field {
                1 => answer.kind = Kind::parse(value.signed()?),
                2 => answer.success = value.boolean()?,
                4 => answer.pid = find(value, 1)?.map(Value::signed).transpose()?,
                5 => {
                    answer.step = find(value, 1)?.map(Value::text).transpose()?.unwrap_or_default();
                    answer.pid = find(value, 2)?.map(Value::signed).transpose()?;
                }
                7 => answer.errno = value.signed()?,
                8 => {
                    let has = |feature: Feature| -> Result<bool> {
                        let found = find(value, feature.field())?;
                        Ok(found.map(Value::boolean).transpose()?.unwrap_or(false))
                    };
                    answer.memory_tracking = has(Feature::MemoryTracking)?;
                    answer.lazy_pages = has(Feature::LazyPages)?;
                }
                9 => answer.message = value.text()?,
                10 => answer.version = Some(version(value)?),
                _ => {}
            }
        }
        Ok(answer)
    }

    pub(super) fn has(&self, feature: Feature) -> bool {
        match feature {
            Feature::MemoryTracking => self.memory_tracking,
            Feature::LazyPages => self.lazy_pages,
        }
    }
}

fn find(message: Value<'_>, wanted: u32) -> Result<Option<Value<'_>>> {
    let all = fields(message.bytes()?)?;
    Ok(all.into_iter().rev().find(|(field, _)| *field == wanted).map(|(_, value)| value))
}

/// 3.17.1 is 31701; a build from git counts as the minor version to come.
fn version(message: Value) -> Result<u32> {
    let number = |field| -> Result<u32> {
        let value = find(message, field)?.map(Value::signed).transpose()?.unwrap_or(0);
        u32::try_from(value).context("a negative version")
    };
    let release = number(1)?.saturating_mul(10_000).saturating_add(number(2)?.saturating_mul(100));
    let git = find(message, 3)?.map(Value::bytes).transpose()?.is_some_and(|id| !id.is_empty());
    Ok(if git { release.saturating_add(100) } else { release.saturating_add(number(4)?) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::criu::{ExternalMount, PageServer};

    #[test]
    fn a_request_for_the_version_is_two_bytes() {
        assert_eq!(request(Kind::Version), [0x08, 10]);
        assert_eq!(notified(true), [0x08, 6, 0x18, 1]);
        assert_eq!(feature_request(Feature::LazyPages), [0x08, 9, 0x2a, 2, 0x10, 1]);
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        let answer = |inner: &dyn Fn(&mut Writer)| {
            let mut writer = Writer::default();
            writer.signed(1, 10);
            writer.boolean(2, true);
            writer.message(10, |to| inner(to));
            Answer::parse(&writer.finish()).unwrap()
        };
        let release = answer(&|to| {
            to.signed(1, 3);
            to.signed(2, 17);
            to.signed(4, 1);
        });
        assert_eq!((release.kind, release.success), (Some(Kind::Version), true));
        assert_eq!(release.version, Some(31_701));
        let git = answer(&|to| {
            to.signed(1, 3);
            to.signed(2, 17);
            to.bytes(3, "v3.17-1-gabc");
            to.signed(4, 1);
        });
        assert_eq!(git.version, Some(31_800));
    }

    #[test]
    fn a_notification_names_its_step() {
        let mut writer = Writer::default();
        writer.signed(1, 6);
        writer.boolean(2, true);
        writer.message(5, |to| {
            to.bytes(1, "post-restore");
            to.signed(2, 4711);
        });
        let answer = Answer::parse(&writer.finish()).unwrap();
        assert_eq!(answer.kind, Some(Kind::Notify));
        assert_eq!((answer.step.as_str(), answer.pid), ("post-restore", Some(4711)));
    }

    #[test]
    fn a_failure_carries_its_number_and_text() {
        let mut writer = Writer::default();
        writer.signed(1, 1);
        writer.boolean(2, false);
        writer.signed(7, 3);
        writer.bytes(9, "why");
        let answer = Answer::parse(&writer.finish()).unwrap();
        assert!(!answer.success);
        assert_eq!((answer.errno, answer.message.as_str()), (3, "why"));
    }

    #[test]
    fn options_are_found_by_their_numbers() {
        let options = Options {
            images_dir: 5,
            pid: Some(77),
            tcp_established: true,
            page_server: Some(PageServer { address: "::1".to_owned(), port: 27 }),
            external_mounts: vec![ExternalMount { key: "/a".into(), value: "/b".into() }],
            inherited: vec![("pipe:[9]".to_owned(), 1)],
            joined: vec![("ipc".to_owned(), "/p".into())],
            external: vec!["net[4]:extRootNetNS".to_owned()],
            cgroup_roots: vec![(String::new(), "/c".to_owned())],
            ..Options::default()
        };
        let bytes = work_request(Kind::Dump, &options);
        let request = fields(&bytes).unwrap();
        assert_eq!(request[0].1.signed().unwrap(), 1);
        let opts = request[1].1;
        let number = |field| find(opts, field).unwrap().map(|value| value.signed().unwrap());
        assert_eq!(
            (number(1), number(2), number(5), number(3)),
            (Some(5), Some(77), Some(1), Some(0))
        );
        // What is not asked for, and is not for a dump.
        assert_eq!((number(6), number(26), number(15), number(49)), (None, None, None, None));
        let inner = |field, wanted| {
            let message = find(opts, field).unwrap().unwrap();
            find(message, wanted).unwrap().unwrap()
        };
        assert_eq!(inner(11, 1).bytes().unwrap(), b"::1");
        assert_eq!(inner(11, 2).signed().unwrap(), 27);
        assert_eq!(inner(23, 2).bytes().unwrap(), b"/b");
        assert_eq!(inner(25, 1).bytes().unwrap(), b"");
        assert_eq!(inner(27, 1).bytes().unwrap(), b"pipe:[9]");
        assert_eq!(inner(39, 2).bytes().unwrap(), b"/p");
        assert_eq!(find(opts, 37).unwrap().unwrap().bytes().unwrap(), b"net[4]:extRootNetNS");
    }
}
