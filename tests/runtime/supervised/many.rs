//! Many at once: no line is lost, nobody is left a zombie, and a supervisor stays small.
//!
//! `E2E_SOAK=SECONDS` has 200 of them write for so long; a few for a moment is what always runs.

use std::collections::BTreeSet;
use std::fs;
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use super::super::under_ours;
use super::verbs::shell;

/// Kilobytes that a supervisor may take, what it shares with others counted by its part. The promise
/// is 1024 for a release build, which takes a third of that; one for tests is four times as large.
const MOST_KB: u64 = 2048;
const HOW_MANY: usize = 8;

#[test]
fn many_write_at_once_and_no_line_is_lost() {
    under_ours(|it| {
        let ids: Vec<String> = (0..HOW_MANY).map(|n| it.scene.id(&format!("many{n}"))).collect();
        let script = "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo line $i; done; read x < /go";
        let bundle = shell(it.scene, script);
        for id in &ids {
            it.supervise(bundle.write(), id);
        }
        let wanted: String = (1..=2000).map(|number| format!("line {number}\n")).collect();
        for id in &ids {
            let whole = || it.run(["logs", id]).success().stdout == wanted;
            assert!(crate::harness::eventually(whole), "{id}");
        }
        let mut sizes: Vec<u64> = ids.iter().map(|id| size_kb(it.supervisor(id))).collect();
        sizes.sort_unstable();
        assert!(sizes[HOW_MANY / 2] <= MOST_KB, "{sizes:?}");
        for id in &ids {
            assert_eq!(zombies_of(it.supervisor(id)), 0, "{id}");
        }
        it.cmd(["stop", "-t", "0"]).args(&ids).run().success();
        it.cmd(["delete"]).args(&ids).run().success();
    });
}

#[test]
fn numbered_lines_of_many_are_whole_however_long_they_write() {
    under_ours(|it| {
        let soak: Option<u64> = std::env::var("E2E_SOAK").ok().map(|text| text.parse().unwrap());
        let (count, seconds) = soak.map_or((4, 0), |seconds| (200, seconds));
        let ids: Vec<String> = (0..count).map(|n| it.scene.id(&format!("soak{n}"))).collect();
        // In bursts, and to its end: the last line says how many there were.
        let script = "trap 'go=' TERM; go=1; i=0; while [ $go ]; do n=0; while [ $n -lt 20 ]; do \
                      n=$((n+1)); i=$((i+1)); echo line $i; done; sleep 1; done; echo end $i";
        let bundle = shell(it.scene, script);
        fs::copy("/bin/busybox", it.scene.path("bundle/rootfs/bin/sleep")).unwrap();
        for id in &ids {
            it.supervise(bundle.write(), id);
        }
        let supervisors: Vec<i32> = ids.iter().map(|id| it.supervisor(id)).collect();
        let sizes = || -> u64 { supervisors.iter().map(|&pid| size_kb(pid)).sum() };
        let end = Instant::now() + Duration::from_secs(seconds);
        // What is taken at first is taken once.
        park_timeout(Duration::from_secs(seconds.min(60)));
        let first = sizes();
        park_timeout(end.saturating_duration_since(Instant::now()));
        let last = sizes();
        let zombies: usize = supervisors.iter().map(|&pid| zombies_of(pid)).sum();
        for id in &ids {
            it.run(["kill", id, "TERM"]).success();
        }
        let (mut written, mut lost) = (0, 0);
        for id in &ids {
            it.run(["wait", id]).success();
            let told = it.run(["logs", id]).success().stdout;
            let mut lines: Vec<&str> = told.lines().collect();
            let count: usize = lines.pop().unwrap().strip_prefix("end ").unwrap().parse().unwrap();
            let seen: BTreeSet<&str> = lines.iter().copied().collect();
            let wanted = (1..=count).map(|number| format!("line {number}"));
            lost += wanted.filter(|line| !seen.contains(line.as_str())).count();
            assert!(lines.len() <= count, "{id}: {} of {count}", lines.len());
            written += count;
        }
        println!(
            "{} containers, {seconds} s: {written} lines, {lost} lost, {zombies} zombies, \
             supervisors {first} kB at first and {last} kB at the end",
            ids.len()
        );
        assert_eq!((lost, zombies), (0, 0));
        assert!(last <= first + first / 10, "{first} kB, then {last} kB");
        it.cmd(["delete"]).args(&ids).run().success();
    });
}

fn size_kb(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn zombies_of(parent: i32) -> usize {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    let stats =
        children.split_whitespace().map(|pid| fs::read_to_string(format!("/proc/{pid}/stat")));
    stats.flatten().filter(|stat| stat.rsplit(") ").next().unwrap().starts_with('Z')).count()
}
