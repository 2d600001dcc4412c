use clap::Command;

use super::*;
use crate::plan::{Choices, plan};

fn arguments<T: clap::Args>(words: &[&str]) -> T {
    let command = T::augment_args(Command::new("x"));
    let words = ["x"].iter().chain(words).chain(&["id"]);
    T::from_arg_matches(&command.try_get_matches_from(words).unwrap()).unwrap()
}

fn dump(words: &[&str]) -> Result<Options> {
    checkpoint(&arguments::<Checkpoint>(words), &Spec::default())
}

fn spec(text: &str) -> Spec {
    crate::spec::parse(text.as_bytes()).unwrap()
}

#[test]
fn each_flag_of_a_checkpoint_has_its_option() {
    let plain = dump(&[]).unwrap();
    assert_eq!(plain.cgroups, CgroupMode::Default);
    assert_eq!(plain.empty_namespaces, libc::CLONE_NEWNET.cast_unsigned());
    assert_eq!((plain.log_file, plain.restoring), ("dump.log", false));
    type Change = fn(&mut Options);
    let cases: [(&[&str], Change); 13] = [
        (&["--leave-running"], |it| it.leave_running = true),
        (&["--tcp-established"], |it| it.tcp_established = true),
        (&["--tcp-skip-in-flight"], |it| it.tcp_skip_in_flight = true),
        (&["--link-remap"], |it| it.link_remap = true),
        (&["--ext-unix-sk"], |it| it.external_unix_sockets = true),
        (&["--shell-job"], |it| it.shell_job = true),
        (&["--lazy-pages"], |it| it.lazy_pages = true),
        (&["--file-locks"], |it| it.file_locks = true),
        (&["--auto-dedup"], |it| it.auto_dedup = true),
        (&["--empty-ns", "network"], |_| {}),
        (&["--manage-cgroups-mode", "strict"], |it| it.cgroups = CgroupMode::Strict),
        (&["--parent-path", "../p"], |it| it.parent_images = Some("../p".into())),
        (&["--page-server", "[::1]:27"], |it| {
            it.page_server = Some(PageServer { address: "::1".to_owned(), port: 27 });
        }),
    ];
    for (words, change) in cases {
        let mut expected = plain.clone();
        change(&mut expected);
        assert_eq!(dump(words).unwrap(), expected, "{words:?}");
    }
}

#[test]
fn each_flag_of_a_restore_has_its_option() {
    let args: Restore = arguments(&["--lsm-profile", "apparmor:x", "--lsm-mount-context", "c"]);
    let options = restore(&args, &Spec::default()).unwrap();
    assert!(options.restoring);
    assert_eq!(options.log_file, "restore.log");
    assert_eq!(options.lsm_profile.as_deref(), Some("apparmor:x"));
    assert_eq!(options.lsm_mount_context.as_deref(), Some("c"));
    let args: Restore = arguments(&["--tcp-established", "--manage-cgroups-mode", "ignore"]);
    let options = restore(&args, &Spec::default()).unwrap();
    assert!(options.tcp_established && options.lsm_profile.is_none());
    assert_eq!(options.cgroups.number(), 0);
}

#[test]
fn wrong_values_are_named() {
    for (words, text) in [
        (["--page-server", "nowhere"], "Use --page-server ADDRESS:PORT"),
        (["--page-server", ":27"], "Use --page-server ADDRESS:PORT"),
        (["--page-server", "::1:27"], "Use --page-server ADDRESS:PORT"),
        (["--page-server", "a:99999"], "Invalid port number"),
        (["--page-server", "a:0"], "Invalid port number"),
        (["--manage-cgroups-mode", "odd"], "invalid manage-cgroups-mode value: odd"),
    ] {
        let error = dump(&words).unwrap_err().to_string();
        assert!(error.starts_with(text), "{words:?}: {error}");
    }
    let check = |words: &[&str]| arguments::<Checkpoint>(words).check();
    assert!(check(&["--empty-ns", "ipc"]).is_err());
    assert!(check(&["--parent-path", "/p"]).is_err());
    assert!(check(&["--parent-path", "p"]).is_ok());
}

#[test]
fn an_annotation_names_the_configuration_or_that_there_is_none() {
    let file = |annotations: &str| {
        let text = format!(r#"{{"ociVersion":"1.0.2","annotations":{annotations}}}"#);
        checkpoint(&arguments(&[]), &spec(&text)).unwrap().config_file
    };
    assert_eq!(file("{}").as_deref(), Some("/etc/criu/runc.conf"));
    assert_eq!(file(r#"{"org.criu.config":"/x"}"#).as_deref(), Some("/x"));
    assert_eq!(file(r#"{"org.criu.config":""}"#), None);
}

const CONTAINER: &str = r#"{"ociVersion":"1.0.2","process":{"args":["sh"],"cwd":"/"},"root":{"path":"r"},
    "mounts":[{"destination":"/proc","type":"proc","source":"proc"},
      {"destination":"/dev","type":"tmpfs","source":"tmpfs"},
      {"destination":"/dev/pts","type":"devpts","source":"devpts"},
      {"destination":"/conf","type":"bind","source":"etc/.","options":["rbind"]},
      {"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup"}],
    "linux":{"namespaces":[{"type":"pid"},{"type":"mount"},{"type":"network","path":"/run/n"},
      {"type":"ipc","path":"/run/i"}]}}"#;

#[test]
fn mounts_from_outside_are_named_by_where_they_are() {
    let spec = spec(CONTAINER);
    let plan = plan("c", Path::new("/b"), Path::new("/b/r"), &spec, Choices::default()).unwrap();
    let resolve = |path: &Path| match path.strip_prefix("conf") {
        Ok(rest) => Path::new("real").join(rest).components().collect(),
        Err(_) => path.to_owned(),
    };
    let cgroups = [("pids".to_owned(), PathBuf::from("/sys/fs/cgroup/pids/c"))];
    let outside =
        Outside { mounts: &plan.mounts, nodes: &[], resolve: &resolve, cgroups: &cgroups };
    let pairs = |mounts: Vec<ExternalMount>| -> Vec<(String, String)> {
        let text = |path: PathBuf| path.display().to_string();
        mounts.into_iter().map(|mount| (text(mount.key), text(mount.value))).collect()
    };
    let expected = |list: &[(&str, &str)]| -> Vec<(String, String)> {
        list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    };
    assert_eq!(
        pairs(outside.dumped(&["proc/kcore".into()])),
        expected(&[
            ("/real", "/real"),
            ("/sys/fs/cgroup/pids", "/sys/fs/cgroup/pids"),
            ("/proc/kcore", "/dev/null")
        ])
    );
    assert_eq!(
        pairs(outside.restored(true)),
        expected(&[
            ("/real", "/b/etc"),
            ("/sys/fs/cgroup/pids", "/sys/fs/cgroup/pids/c"),
            ("/dev/null", "/dev/null")
        ])
    );
}

#[test]
fn joined_namespaces_are_kept_or_entered() {
    let spec = spec(CONTAINER);
    let namespaces = Namespaces::plan(spec.linux.as_ref().unwrap()).unwrap();
    let lasting = lasting(&namespaces);
    assert_eq!(lasting.len(), 1);
    assert_eq!((lasting[0].key, lasting[0].path.as_path()), ("extRootNetNS", Path::new("/run/n")));
    assert_eq!(joined(&namespaces).unwrap(), [("ipc".to_owned(), PathBuf::from("/run/i"))]);
    let cgroup = Namespaces { join: vec![(Kind::Cgroup, "/x".into())], ..Namespaces::default() };
    assert!(joined(&cgroup).is_err());
}

#[test]
fn what_lies_in_a_tmpfs_is_not_in_the_root() {
    let spec = spec(CONTAINER);
    let plan = plan("c", Path::new("/b"), Path::new("/b/r"), &spec, Choices::default()).unwrap();
    let inside: Vec<&Path> = plan
        .mounts
        .iter()
        .filter(|mount| lies_in_another(mount, &plan.mounts))
        .map(|mount| mount.target.as_path())
        .collect();
    assert_eq!(inside, [Path::new("dev/pts")]);
}
