//! A pod as Kubernetes makes one, through containerd's CRI plugin: a sandbox with a network of its own,
//! and containers in its namespaces.

use std::fs;

use super::{IMAGE, archive};
use crate::harness::containerd::{CRI_NAMESPACE, Containerd, PAUSE};
use crate::harness::cri::{Cri, Message};
use crate::harness::image::Image;
use crate::harness::{Scene, Witness, scene};

/// NamespaceMode of the interface: shared by the pod, the container's own.
const POD: u64 = 0;
const CONTAINER: u64 = 1;

struct Pod {
    cri: Cri,
    config: Message,
    id: String,
}

impl Pod {
    fn run(containerd: &Containerd, scene: &Scene) -> Self {
        let cri = Cri::new(containerd.socket(), &scene.path("containerd"));
        let logs = scene.path("logs");
        fs::create_dir(&logs).unwrap();
        let metadata = Message::new().text(1, "pod").text(2, "uid-of-pod").text(3, "e2e");
        let namespaces = Message::new().number(1, POD).number(2, CONTAINER).number(3, POD);
        let security = Message::new().message(1, &namespaces);
        let linux = Message::new().text(1, &containerd.cgroup()).message(2, &security);
        let config = Message::new()
            .message(1, &metadata)
            .text(2, "pods-name")
            .text(3, &logs.display().to_string())
            .message(8, &linux);
        let run = cri.call("RunPodSandbox", &Message::new().message(1, &config));
        Self { id: run.get_text(1), cri, config }
    }

    /// Creates a container that runs a script; its id.
    fn container(&self, name: &str, script: &str) -> String {
        let resources = Message::new().number(4, 32 << 20);
        let namespaces = Message::new().number(1, POD).number(2, CONTAINER).number(3, POD);
        let security = Message::new().message(3, &namespaces);
        let linux = Message::new().message(1, &resources).message(2, &security);
        let config = Message::new()
            .message(1, &Message::new().text(1, name))
            .message(2, &Message::new().text(1, IMAGE))
            .texts(3, &["/bin/sh", "-c", script])
            .message(6, &Message::new().text(1, "KEY").text(2, "value"))
            .text(11, &format!("{name}.log"))
            .message(15, &linux);
        let request = Message::new().text(1, &self.id).message(2, &config).message(3, &self.config);
        let id = self.cri.call("CreateContainer", &request).get_text(1);
        self.cri.call("StartContainer", &Message::new().text(1, &id));
        id
    }

    /// What a script prints within a container, and its exit code.
    fn exec(&self, container: &str, script: &str) -> (String, u64) {
        let request = Message::new().text(1, container).texts(2, &["/bin/sh", "-c", script]);
        let answer = self.cri.call("ExecSync", &request.number(3, 30));
        (answer.get_text(1), answer.get_number(3))
    }

    fn remove(self) {
        self.cri.call("StopPodSandbox", &Message::new().text(1, &self.id));
        self.cri.call("RemovePodSandbox", &Message::new().text(1, &self.id));
    }
}

#[test]
fn a_pod_of_kubernetes_lives_under_our_runtime_in_our_network() {
    scene(|scene| {
        let witness = Witness::new(scene);
        let containerd = Containerd::start(&witness, scene);
        let pause = Image::probe(&["pause"]).docker_archive(&scene.path("pause.tar"), PAUSE);
        for image in [archive(scene), pause] {
            let import = containerd.ctr_in(CRI_NAMESPACE, "image import");
            import.arg(image).run().success();
        }
        let pod = Pod::run(&containerd, scene);
        let one = pod.container("one", "echo \"$KEY\"; exec sleep 1000");
        let two = pod.container("two", "trap 'exit 3' TERM; while :; do sleep 0.1; done");

        let shared = "readlink /proc/self/ns/net; readlink /proc/self/ns/ipc; hostname; ip -o addr";
        let (seen, code) = pod.exec(&one, shared);
        assert_eq!(code, 0);
        assert!(seen.contains("pods-name") & seen.contains("10.199.7."), "{seen}");
        assert_eq!(pod.exec(&two, shared).0, seen);
        let own = "readlink /proc/self/ns/pid";
        assert_ne!(pod.exec(&one, own).0, pod.exec(&two, own).0);
        assert_eq!(pod.exec(&two, "exit 7").1, 7);
        let limit = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes";
        assert_eq!(pod.exec(&one, limit).0, "33554432\n");

        let resources = Message::new().number(4, 64 << 20);
        let update = Message::new().text(1, &one).message(2, &resources);
        pod.cri.call("UpdateContainerResources", &update);
        assert_eq!(pod.exec(&one, limit).0, "67108864\n");

        let log = fs::read_to_string(scene.path("logs/one.log")).unwrap();
        assert!(log.contains("stdout F value"), "{log}");
        pod.cri.call("StopContainer", &Message::new().text(1, &two).number(2, 30));
        let status = pod.cri.call("ContainerStatus", &Message::new().text(1, &two)).get(1);
        assert_eq!(status.get_number(7), 3);
        pod.cri.call("RemoveContainer", &Message::new().text(1, &two));
        pod.remove();
        witness.saw(&["create", "start", "exec --detach", "update --resources -", "kill 15"]);
    });
}
