//! Which processes have a file open, as far as the system tells.

use std::path::Path;

/// Each as `process 42 (name)`, without this one. Empty where none has, and where the system does not tell.
#[cfg(target_os = "linux")]
pub(crate) fn of(file: &Path) -> Vec<String> {
    let Ok(file) = std::fs::canonicalize(file) else { return Vec::new() };
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut found = Vec::new();
    for process in processes {
        let number = process.file_name().to_string_lossy().parse::<u32>();
        let Some(number) = number.ok().filter(|number| *number != std::process::id()) else {
            continue;
        };
        let open = std::fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        if open.into_iter().any(|open| std::fs::read_link(open.path()).is_ok_and(|to| to == file)) {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            found.push(format!("process {number} ({})", name.trim()));
        }
    }
    found
}

/// Each as `process 42 (name)`, without this one. Empty where none has, and where the system does not tell.
#[cfg(not(target_os = "linux"))]
pub(crate) fn of(_file: &Path) -> Vec<String> {
    Vec::new()
}
