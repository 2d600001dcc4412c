//! Controllers of what few hosts have: huge pages set aside, RDMA devices, what `misc` counts.

use serde_json::json;

use super::{huge_pages, unified};

const POOL: &str = "/proc/sys/vm/nr_hugepages";

/// Pages of 2 MB in the host's pool, as many as were there before when dropped.
struct Pool(String);

impl Pool {
    /// Tells why and returns nothing where the pool is not ours to change, or stays too small.
    fn of(pages: u64) -> Option<Self> {
        if std::env::var_os("E2E_VM").is_none() {
            println!("SKIP: the host's huge pages are left alone");
            return None;
        }
        let before = std::fs::read_to_string(POOL).expect("read the size of the pool");
        let pool = Pool(before.trim().to_owned());
        std::fs::write(POOL, pages.to_string()).expect("set the size of the pool");
        let now = std::fs::read_to_string(POOL).expect("read the size of the pool");
        if now.trim() != pages.to_string() {
            println!("SKIP: the host has no {pages} huge pages together");
            return None;
        }
        Some(pool)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        std::fs::write(POOL, &self.0).expect("set the size of the pool");
    }
}

#[test]
fn huge_pages_are_counted_when_they_are_reserved() {
    unified(&["hugetlb"], |host| {
        let Some(_pool) = Pool::of(8) else { return };
        let bundle = host.bundle(&["pause"]);
        host.start(bundle.edit("/linux/resources/hugepageLimits", huge_pages(4 << 20)).write());
        let map = |bytes: u64| {
            let words = ["exec", &host.id, "/probe", "map-huge"];
            host.runtime(words).arg(bytes.to_string()).run().success().stdout
        };
        // The call itself fails, where without a limit of reservations the first touch would kill.
        assert_eq!(map(6 << 20), "ENOMEM\n");
        assert_eq!(map(4 << 20), "ok\n");
        let event = host.runtime(["events", "--stats", &host.id]).run().success().json();
        assert_eq!(event["data"]["hugetlb"]["2MB"]["failcnt"], json!(1), "the kernel counts it");
        assert!(host.read("hugetlb.2MB.rsvd.max") == (4 << 20).to_string());
        let update = host.runtime(["update", "--resources", "-", &host.id]);
        update.stdin(json!({ "hugepageLimits": huge_pages(8 << 20) }).to_string()).run().success();
        assert_eq!(map(6 << 20), "ok\n");
        host.delete();
    });
}

#[test]
fn an_rdma_device_that_is_not_there_is_told_with_its_field() {
    unified(&["rdma"], |host| {
        let limits = json!({ "mlx5_77": { "hcaHandles": 3, "hcaObjects": 10_000 } });
        let bundle = host.bundle(&[]).edit("/linux/resources/rdma", limits.clone());
        let words = ["linux.resources.rdma.mlx5_77: ", "rdma.max", "no such device"];
        host.refused(bundle.write(), &words);
        assert!(!host.view.path(&host.cgroup).exists(), "the cgroup is left");
        // In a running container nothing else of the same change stays either.
        host.start(host.bundle(&["pause"]).write());
        let update = host.runtime(["update", "--resources", "-", &host.id]);
        let change = json!({ "rdma": limits, "unified": { "cgroup.max.depth": "3" } });
        update.stdin(change.to_string()).run().refused(&words);
        assert_eq!(host.read("cgroup.max.depth"), "max");
        host.delete();
    });
}

#[test]
fn what_misc_counts_is_limited_by_the_kernels_own_names() {
    unified(&["misc"], |host| {
        let one = |key: &str| json!({ "misc.max": format!("{key} 1") });
        let bundle = host.bundle(&[]).edit("/linux/resources/unified", one("nonesuch"));
        host.refused(
            bundle.write(),
            &["linux.resources.unified: ", "misc.max", "invalid argument"],
        );
        assert!(!host.view.path(&host.cgroup).exists(), "the cgroup is left");
        // Processors that encrypt guests have names here.
        let capacity = host.view.read("misc.capacity");
        for key in capacity.lines().filter_map(|line| line.split(' ').next()) {
            let bundle = host.bundle(&["pause"]).edit("/linux/resources/unified", one(key));
            host.start(bundle.write());
            assert!(host.read("misc.max").contains(&format!("{key} 1")), "{key}");
            host.delete();
        }
    });
}
