//! Which container a process runs in: what the container runtimes write into the names of control groups.
//!
//! No IO here: the text of `/proc/PID/cgroup` and the names in kubelet's log folder come in as arguments.

/// A container, as the host sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// The runtime's id: 64 hexadecimal digits.
    pub id: String,
    /// The UID of its Kubernetes pod.
    pub pod_uid: Option<String>,
}

/// A Kubernetes pod's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// The pod's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
}

impl Container {
    /// The innermost container that the text of `/proc/PID/cgroup` names; none on the host itself.
    ///
    /// Each line is `hierarchy:controllers:path` (cgroups(7)). With version 1 each hierarchy has its own; runtimes
    /// give the container a group in all of them.
    pub fn of_cgroups(text: &str) -> Option<Self> {
        text.lines().filter_map(|line| line.splitn(3, ':').nth(2)).find_map(Self::of_path)
    }

    fn of_path(path: &str) -> Option<Self> {
        let groups: Vec<&str> = path.split('/').collect();
        let (at, id) = groups.iter().enumerate().rev().find_map(|(at, group)| Some((at, id(group)?)))?;
        // A pod stands above its container, or in the same name. The nearest: clusters may run in containers.
        let pod_uid = groups.iter().take(at + 1).rev().find_map(|group| pod_uid(group));
        Some(Self { id: id.to_owned(), pod_uid })
    }
}

impl Pod {
    /// The names of the pod with this UID, among the names of kubelet's folders of logs: `NAMESPACE_NAME_UID`
    /// (`BuildPodLogsDirectory` in `pkg/kubelet/kuberuntime`). Neither name can hold an underscore.
    pub fn among<'n>(folders: impl IntoIterator<Item = &'n str>, uid: &str) -> Option<Self> {
        folders.into_iter().find_map(|folder| {
            let (names, found) = folder.rsplit_once('_')?;
            let (namespace, name) = names.split_once('_').filter(|_| found == uid)?;
            Some(Self { name: name.to_owned(), namespace: namespace.to_owned() })
        })
    }
}

/// The container's id in a group's name: alone, or behind the runtime's name and `-` (`docker-…`, `cri-containerd-…`,
/// `crio-…`, `libpod-…`) or `:`, as a scope of systemd or a plain group.
fn id(group: &str) -> Option<&str> {
    let name = group.strip_suffix(".scope").unwrap_or(group);
    let (runtime, id) = name.rsplit_once(['-', ':']).unwrap_or(("", name));
    // conmon is a container's supervisor, with a group of its own beside the container's.
    let supervisor = runtime.ends_with("conmon");
    (!supervisor && id.len() == ID && id.bytes().all(is_hex)).then_some(id)
}

/// The pod's UID in a group's name: `pod…` alone (cgroupfs driver), or `…-pod….slice` (systemd driver, which puts `_`
/// for `-`). It is a UUID; of a pod that kubelet found in a file, a hash of 32 hexadecimal digits.
fn pod_uid(group: &str) -> Option<String> {
    let name = group.split_once(':').map_or(group, |(slice, _)| slice);
    let name = name.strip_suffix(".slice").unwrap_or(name);
    let at = name.rfind("pod").filter(|at| *at == 0 || name.as_bytes().get(at - 1) == Some(&b'-'))?;
    let uid = name.get(at + "pod".len()..)?.replace('_', "-");
    let uuid = uid.len() == UUID && uid.split('-').map(str::len).eq([8, 4, 4, 4, 12]);
    let digits = uid.bytes().filter(|byte| *byte != b'-').all(is_hex);
    (digits && (uuid || uid.len() == HASH)).then_some(uid)
}

fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// Length of a container's id: SHA-256 in hexadecimal, with all runtimes.
const ID: usize = 64;
const UUID: usize = 36;
const HASH: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "3f1e0c1d5a2b48f6b0e7c9d8a1f2e3d4c5b6a7988776655443322110ffeeddcc";
    const B: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    const UID: &str = "8dbc1f4e-7b1a-4f0e-9d1c-2f6f3c9f3a11";
    const SLICE: &str = "8dbc1f4e_7b1a_4f0e_9d1c_2f6f3c9f3a11";
    const FILE: &str = "d5a1d1f3a0c1b2e3f4a5b6c7d8e9f001";

    #[test]
    fn every_runtimes_groups_are_known() {
        let table: &[(&str, &str, Option<&str>)] = &[
            // Docker: cgroupfs and systemd drivers.
            ("/docker/{A}", A, None),
            ("/system.slice/docker-{A}.scope", A, None),
            // The groups that systemd inside a container makes.
            ("/docker/{A}/system.slice/postgresql.service", A, None),
            // Docker in Docker.
            ("/docker/{B}/docker/{A}", A, None),
            // Kubernetes: containerd, systemd and cgroupfs drivers, every class of service.
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{SLICE}.slice/cri-containerd-{A}.scope",
                A,
                Some(UID),
            ),
            (
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{SLICE}.slice/cri-containerd-{A}.scope",
                A,
                Some(UID),
            ),
            ("/kubepods.slice/kubepods-pod{SLICE}.slice/cri-containerd-{A}.scope", A, Some(UID)),
            ("/kubepods/burstable/pod{UID}/{A}", A, Some(UID)),
            ("/kubepods/pod{UID}/{A}", A, Some(UID)),
            // containerd with the cgroupfs driver below a kubelet with the systemd driver.
            (
                "/system.slice/containerd.service/kubepods-burstable-pod{SLICE}.slice:cri-containerd:{A}",
                A,
                Some(UID),
            ),
            // Kubernetes: Docker, CRI-O.
            ("/kubepods.slice/kubepods-pod{SLICE}.slice/docker-{A}.scope", A, Some(UID)),
            ("/kubepods.slice/kubepods-pod{SLICE}.slice/crio-{A}.scope", A, Some(UID)),
            ("/kubepods.slice/kubepods-pod{SLICE}.slice/crio-{A}.scope/container", A, Some(UID)),
            ("/kubepods/besteffort/pod{UID}/crio-{A}", A, Some(UID)),
            // A pod from a file in kubelet's folder.
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{FILE}.slice/cri-containerd-{A}.scope",
                A,
                Some(FILE),
            ),
            // kind: a cluster whose nodes are containers.
            (
                "/docker/{B}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{SLICE}.slice/cri-containerd-{A}.scope",
                A,
                Some(UID),
            ),
            // Seen from inside another cgroup namespace.
            ("/../../kubepods/burstable/pod{UID}/{A}", A, Some(UID)),
            // Podman: as root, rootless, cgroupfs driver.
            ("/machine.slice/libpod-{A}.scope", A, None),
            ("/machine.slice/libpod-{A}.scope/container", A, None),
            ("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{A}.scope/container", A, None),
            ("/libpod_parent/libpod-{A}", A, None),
            // nerdctl; containerd's own; Amazon ECS.
            ("/system.slice/nerdctl-{A}.scope", A, None),
            ("/default/{A}", A, None),
            ("/ecs/production/0f1e2d3c4b5a69788796a5b4c3d2e1f0/{A}", A, None),
        ];
        for (path, id, pod) in table {
            let path = fill(path);
            let container = Container { id: (*id).into(), pod_uid: pod.map(str::to_owned) };
            assert_eq!(Container::of_cgroups(&format!("0::{path}\n")), Some(container), "{path}");
        }
    }

    #[test]
    fn what_is_no_container_is_not_taken_for_one() {
        for path in [
            "/",
            "/init.scope",
            "/system.slice/system-postgresql.slice/postgresql@15-main.service",
            "/user.slice/user-1000.slice/session-2.scope",
            "/machine.slice/libpod-conmon-{A}.scope",
            "/kubepods.slice/kubepods-pod{SLICE}.slice/crio-conmon-{A}.scope",
            "/kubepods/burstable/pod{UID}",
            "/docker/3f1e0c1d5a2b",
        ] {
            let path = fill(path);
            assert_eq!(Container::of_cgroups(&format!("0::{path}\n")), None, "{path}");
        }
        assert_eq!(Container::of_cgroups(""), None);
    }

    #[test]
    fn the_first_hierarchy_with_a_container_says_which() {
        let text = fill("11:cpuset:/\n4:memory:/docker/{A}\n1:name=systemd:/docker/{A}\n0::/\n");
        assert_eq!(Container::of_cgroups(&text).map(|container| container.id), Some(A.to_owned()));
    }

    #[test]
    fn a_pods_names_stand_in_the_name_of_its_folder() {
        let folder = fill("payments_orders-db-0_{UID}");
        let folders = ["kube-system_etcd-a_0", "", "no-names", folder.as_str()];
        let pod = Pod { name: "orders-db-0".into(), namespace: "payments".into() };
        assert_eq!(Pod::among(folders, UID), Some(pod));
        assert_eq!(Pod::among(folders, FILE), None);
    }

    fn fill(path: &str) -> String {
        [("{A}", A), ("{B}", B), ("{UID}", UID), ("{SLICE}", SLICE), ("{FILE}", FILE)]
            .iter()
            .fold(path.to_owned(), |path, (name, value)| path.replace(name, value))
    }
}
