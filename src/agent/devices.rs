//! Which GPUs does this host show that an engine could use? Drivers show them by files, so nothing has to be asked that
//! could hang.
use std::fs;
use std::path::Path;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gpus {
    /// There is one that computes, and its driver. A render node alone is none: it may be of a processor's own graphics, or of a
    /// virtual machine's screen. An engine that uses one all the same says so in its log.
    pub usable: bool,
    /// An engine that is told nothing else is expected to use one: what waits for its driver counts.
    pub expected: bool,
}

/// `root`: where /proc, /dev and /sys are looked for.
pub fn gpus(root: &Path) -> Gpus {
    // Under WSL the only device is dxg.
    let named = ["proc/driver/nvidia", "dev/kfd", "dev/dxg"];
    let computes = named.iter().any(|path| root.join(path).exists())
        || holds(&root.join("dev"), &["nvidia", "nvhost", "nvgpu"]);
    Gpus { usable: computes, expected: computes || waits_for_driver(&root.join("sys/bus/pci/devices")) }
}

fn holds(dir: &Path, beginnings: &[&str]) -> bool {
    let Ok(entries) = fs::read_dir(dir) else { return false };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        beginnings.iter().any(|beginning| name.as_encoded_bytes().starts_with(beginning.as_bytes()))
    })
}

/// Is there a card of NVIDIA's that no driver has taken: not loaded yet, or lost by an update?
fn waits_for_driver(pci: &Path) -> bool {
    let Ok(entries) = fs::read_dir(pci) else { return false };
    entries.flatten().map(|entry| entry.path()).any(|device| {
        let is = |file: &str, beginning: &str| {
            fs::read_to_string(device.join(file)).is_ok_and(|text| text.starts_with(beginning))
        };
        is("vendor", "0x10de") && is("class", "0x03") && fs::symlink_metadata(device.join("driver")).is_err()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(files: &[(&str, &str)]) -> Gpus {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let file = root.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, text).unwrap();
        }
        gpus(root.path())
    }

    #[test]
    fn a_gpu_is_known_by_the_files_of_its_driver() {
        for (path, usable, expected) in [
            ("proc/driver/nvidia/version", true, true),
            ("dev/nvidia0", true, true),
            ("dev/nvidiactl", true, true),
            ("dev/kfd", true, true),
            ("dev/dxg", true, true),
            // Of a processor's own graphics, or a virtual machine's screen, as likely as not.
            ("dev/dri/renderD128", false, false),
            ("sys/bus/pci/drivers/i915/bind", false, false),
            ("sys/bus/pci/drivers/amdgpu/bind", false, false),
            // A screen without a GPU, a disk, the clock's memory.
            ("dev/dri/card0", false, false),
            ("dev/nvme0", false, false),
            ("dev/nvram", false, false),
        ] {
            assert_eq!(host(&[(path, "")]), Gpus { usable, expected }, "{path}");
        }
        let nothing = Gpus { usable: false, expected: false };
        assert_eq!(gpus(Path::new("/nonexistent")), nothing, "nothing to be read is no GPU");
    }

    #[test]
    fn a_card_that_waits_for_its_driver_is_expected_to_be_used() {
        let card = |vendor, class, driver: &[(&'static str, &'static str)]| {
            let mut files = vec![("sys/bus/pci/devices/0000:01:00.0/vendor", vendor)];
            files.push(("sys/bus/pci/devices/0000:01:00.0/class", class));
            files.extend(driver);
            host(&files)
        };
        let expected = |expected| Gpus { usable: false, expected };
        assert_eq!(card("0x10de\n", "0x030200\n", &[]), expected(true));
        assert_eq!(card("0x10de\n", "0x040300\n", &[]), expected(false), "its sound");
        assert_eq!(card("0x1234\n", "0x030000\n", &[]), expected(false), "another's screen");
        // Handed to a virtual machine, or to a driver that computes nothing.
        let taken = [("sys/bus/pci/devices/0000:01:00.0/driver", "")];
        assert_eq!(card("0x10de\n", "0x030200\n", &taken), expected(false));
    }
}
