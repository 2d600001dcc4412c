//! A kill or an error at every system call of a CNI plugin: the DEL of the network, which is what a
//! runtime calls after a failure, leaves the host as it was. A sample of the calls by default, all of
//! them with `E2E_FAULTS=all`.

use serde_json::{Value, json};

use super::{Netns, Scene, scene};
use crate::harness::cni::{CniContainer, CniNetwork, plugin_directory};
use crate::harness::host::HostState;
use crate::harness::tracer;

/// How many calls of a plugin are tried in a sample.
const SAMPLE: usize = 4;

#[test]
fn whatever_an_add_of_one_plugin_for_all_came_to_its_del_undoes() {
    let plugin = |scene: &Scene| {
        json!({"type": "netsetup", "bridge": "e2e0", "ipam": ipam(scene),
            "capabilities": {"portMappings": true, "bandwidth": true}})
    };
    hit("ADD", |scene| vec![plugin(scene)], 0);
    hit("DEL", |scene| vec![plugin(scene)], 0);
}

#[test]
fn whatever_an_add_in_a_chain_came_to_the_dels_undo() {
    hit("ADD", chain, 0);
    hit("ADD", chain, 1);
    hit("ADD", chain, 3);
}

#[test]
fn whatever_a_del_in_a_chain_came_to_the_next_dels_finish() {
    hit("DEL", chain, 0);
    hit("DEL", chain, 1);
}

fn ipam(scene: &Scene) -> Value {
    json!({"type": "host-local", "dataDir": scene.path("leases"),
        "ranges": [[{"subnet": "10.198.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]})
}

fn chain(scene: &Scene) -> Vec<Value> {
    vec![
        json!({"type": "bridge", "bridge": "e2e0", "isGateway": true, "ipMasq": true,
            "ipam": ipam(scene)}),
        json!({"type": "portmap", "capabilities": {"portMappings": true}}),
        json!({"type": "firewall"}),
        json!({"type": "tuning", "mtu": 1400, "sysctl": {"net.ipv4.conf.IFNAME.arp_notify": "1"}}),
    ]
}

/// Hits the calls of one plugin of a network.
fn hit(verb: &str, plugins: impl Fn(&Scene) -> Vec<Value>, which: usize) {
    scene(|scene| {
        let netns = Netns::new("pod");
        let path = netns.path();
        let pod = CniContainer {
            id: "pod-1",
            netns: &path,
            interface: "eth0",
            capabilities: json!({"portMappings":
                [{"hostPort": 18080, "containerPort": 80, "protocol": "tcp"}]}),
        };
        let plugins = plugins(scene);
        let directory = plugin_directory(&scene.path("plugins"));
        let network = CniNetwork::new(directory, "1.0.0", "pods", &plugins);
        let plugin = &plugins[which];
        let before = HostState::capture();
        // What comes before: for an ADD the plugins before it, for a DEL all of them.
        let prepare = || {
            let count = if verb == "ADD" { which } else { plugins.len() };
            let mut previous = None;
            for plugin in &plugins[..count] {
                let added = network.call("ADD", plugin, &pod, previous.as_ref());
                assert_eq!(added.code, 0, "{added:?}");
                previous = Some(added.json());
            }
            previous
        };
        let previous = prepare();
        let calls = tracer::trace(network.command(verb, plugin, &pod, previous.as_ref()));
        assert_eq!(calls.code, 0, "{verb} of {}: {calls:?}", plugin["type"]);
        network.del(&pod, previous.as_ref());
        let count = calls.calls.len();
        for number in calls.sample(SAMPLE) {
            let call = calls.calls[number];
            for fault in tracer::kill_or_error(call) {
                let what = format!(
                    "{verb} of {} with {fault:?} at call {number} of {count} ({call})",
                    plugin["type"]
                );
                let previous = prepare();
                let command = network.command(verb, plugin, &pod, previous.as_ref());
                let traced = tracer::trace_with(command, number, fault);
                assert!(traced.struck.is_some() || traced.code == 0, "{what}: {traced:?}");
                // A runtime has no result of an ADD that failed.
                network.del(&pod, previous.as_ref().filter(|_| verb == "DEL"));
                let left = before.differences(&HostState::capture());
                assert!(left.is_empty(), "{what}: {traced:?} left {left:#?}");
                let leases = std::fs::read_dir(scene.path("leases/pods")).into_iter().flatten();
                let leases = leases.flatten().map(|entry| entry.file_name());
                let kept: Vec<_> =
                    leases.filter(|name| name.to_string_lossy().starts_with("10.")).collect();
                assert!(kept.is_empty(), "{what}: {traced:?} kept {kept:?}");
                let links = netns.line("ip -br link").stdout;
                assert_eq!(links.lines().count(), 1, "{what} left in the pod: {links}");
            }
        }
    });
}
