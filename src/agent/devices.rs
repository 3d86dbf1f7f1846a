//! Does this host have a GPU that an engine could use? Drivers show it by files, so nothing has to be asked that could hang.
use std::path::Path;

/// `root`: where /proc and /dev are looked for.
pub fn has_gpu(root: &Path) -> bool {
    // Under WSL the only device is dxg.
    let named = ["proc/driver/nvidia", "dev/kfd", "dev/dxg"];
    named.iter().any(|path| root.join(path).exists())
        || holds(&root.join("dev"), &["nvidia", "nvhost", "nvgpu"])
        || holds(&root.join("dev/dri"), &["renderD"])
}

fn holds(dir: &Path, beginnings: &[&str]) -> bool {
    let Ok(entries) = std::fs::read_dir(dir) else { return false };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        beginnings.iter().any(|beginning| name.as_encoded_bytes().starts_with(beginning.as_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_known_by_the_files_of_its_driver() {
        for (path, expected) in [
            ("proc/driver/nvidia/version", true),
            ("dev/nvidia0", true),
            ("dev/nvidiactl", true),
            ("dev/kfd", true),
            ("dev/dri/renderD128", true),
            ("dev/dxg", true),
            // A screen without a GPU, a disk, the clock's memory.
            ("dev/dri/card0", false),
            ("dev/nvme0", false),
            ("dev/nvram", false),
        ] {
            let root = tempfile::tempdir().unwrap();
            let file = root.path().join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, "").unwrap();
            assert_eq!(has_gpu(root.path()), expected, "{path}");
        }
        assert!(!has_gpu(Path::new("/nonexistent")), "nothing to be read is no GPU");
    }
}
