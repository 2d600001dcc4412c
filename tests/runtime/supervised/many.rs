//! Many at once: no line is lost, nobody is left a zombie, and a supervisor stays small.

use std::fs;

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
