//! The shape of the code, kept by a test: which room may import which, what the pure rooms may not touch, and how long a
//! file, a function or a line may be. See "Shape of the code" in src/ARCHITECTURE.md.
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const LINE_CHARS_MAX: usize = 130;
/// Tables of independent entries in the form of one `match`: they are read entry by entry.
const CATALOGUES: &[&str] = &["src/kinds/cause/advice.rs"];

/// What each room of `src/` may import from the crate. A room that is not named here has no place yet.
fn arrows() -> BTreeMap<&'static str, &'static [&'static str]> {
    BTreeMap::from([
        ("policy", &[][..]),
        ("kinds", &["policy", "printable"]),
        ("clock", &["policy"]),
        ("heart", &["policy", "clock"]),
        ("redact", &[]),
        ("printable", &[]),
        ("shortage", &["policy"]),
        ("threads", &[]),
        ("descriptors", &["shortage"]),
        ("privileges", &[]),
        ("lookout", &[]),
        // `redact` for its tests: what it says must pass the redactor whole.
        ("config", &["policy", "kinds", "redact"]),
        ("shim", &["policy", "kinds", "clock", "redact", "descriptors", "shortage", "privileges", "lookout"]),
        ("proxy", &["policy", "kinds", "clock", "heart", "redact", "descriptors", "shortage", "threads"]),
        ("control", &["policy", "kinds", "clock", "printable", "lookout", "descriptors"]),
        ("systemd", &["policy", "clock", "heart", "printable"]),
        ("gpu", &["policy", "kinds", "clock", "descriptors", "privileges"]),
        ("alert", &["policy", "clock", "printable", "lookout"]),
        (
            "agent",
            &[
                "policy",
                "kinds",
                "clock",
                "heart",
                "redact",
                "printable",
                "descriptors",
                "shortage",
                "threads",
                "lookout",
                "config",
                "shim",
                "proxy",
                "control",
                "systemd",
                "gpu",
                "alert",
            ],
        ),
        (
            "cli",
            &[
                "policy",
                "kinds",
                "clock",
                "redact",
                "printable",
                "config",
                "shim",
                "control",
                "gpu",
                "alert",
                "agent",
            ],
        ),
        ("main", &["cli"]),
        ("lib", &[]),
    ])
}

/// Words that may not stand in the pure rooms, outside of comments.
const IMPURE: &[&str] = &[
    "tokio",
    "async fn",
    ".await",
    "Instant::now",
    "SystemTime",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "std::env",
    "Serialize",
    "Deserialize",
    "println!",
    "tracing::",
];

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).expect("a readable source directory") {
            let path = entry.expect("a directory entry").path();
            match path.extension() {
                None if path.is_dir() => open.push(path),
                Some(ext) if ext == "rs" => found.push(path),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The room that a file of `src/` belongs to: its top-level folder, or its own stem.
fn room(path: &Path) -> String {
    let inside = path.strip_prefix(root().join("src")).expect("a file of src");
    let first = inside.components().next().expect("a component").as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// The code of a file without comment lines, and without its test module where that is in the same file.
fn code(text: &str) -> String {
    let body = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    body.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn rooms_import_only_what_the_design_allows() {
    let arrows = arrows();
    let mut wrong = Vec::new();
    for path in rust_files(&root().join("src")) {
        let room = room(&path);
        let Some(allowed) = arrows.get(room.as_str()) else {
            wrong.push(format!("{}: the room `{room}` has no arrows in tests/it/tidy.rs", path.display()));
            continue;
        };
        let text = code(&fs::read_to_string(&path).expect("a readable file"));
        for named in text.split("crate::").skip(1).flat_map(imported) {
            if named != room && arrows.contains_key(named.as_str()) && !allowed.contains(&named.as_str()) {
                wrong.push(format!("{}: `{room}` may not import `{named}`", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The rooms that stand after one `crate::`, which may be a braced list.
fn imported(after: &str) -> Vec<String> {
    let word = |s: &str| s.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(list) = after.strip_prefix('{') else { return vec![word(after)] };
    let mut depth = 0_i32;
    let mut names = vec![String::new()];
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(String::new()),
            _ if depth == 0 => names.last_mut().expect("one at least").push(c),
            _ => {}
        }
    }
    names.iter().map(|n| word(n.trim())).filter(|n| !n.is_empty()).collect()
}

#[test]
fn policy_and_kinds_are_pure() {
    let mut wrong = Vec::new();
    for pure in ["policy", "kinds", "redact", "printable", "shortage"] {
        let room = root().join("src").join(pure);
        let mut files = if room.is_dir() { rust_files(&room) } else { Vec::new() };
        files.extend(Some(room.with_extension("rs")).filter(|file| file.exists()));
        for path in files {
            let text = code(&fs::read_to_string(&path).expect("a readable file"));
            for word in IMPURE.iter().filter(|w| text.contains(*w)) {
                wrong.push(format!("{}: `{word}`", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn policy_answers_every_event_without_a_wildcard() {
    let mut wrong = Vec::new();
    // Nor do its tests: they take one of several with `if let` or `matches!`.
    for path in rust_files(&root().join("src/policy")) {
        let text = fs::read_to_string(&path).expect("a readable file");
        for (number, line) in text.lines().enumerate().filter(|(_, l)| l.trim_start().starts_with("_ =>")) {
            wrong.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_functions_and_lines_stay_short() {
    let mut wrong = Vec::new();
    for path in rust_files(&root().join("src")).into_iter().chain(rust_files(&root().join("tests"))) {
        let text = fs::read_to_string(&path).expect("a readable file");
        let lines: Vec<&str> = text.lines().collect();
        if lines.len() > FILE_LINES_MAX {
            wrong.push(format!("{}: {} lines", path.display(), lines.len()));
        }
        // Expected output stands in tests as it is printed, however long.
        let is_test = path.components().any(|part| part.as_os_str().to_string_lossy().starts_with("tests"));
        let long = |line: &&str| !is_test && line.chars().count() > LINE_CHARS_MAX;
        for (number, line) in lines.iter().enumerate().filter(|(_, line)| long(line)) {
            wrong.push(format!("{}:{}: {} characters", path.display(), number + 1, line.chars().count()));
        }
        if is_test || CATALOGUES.iter().any(|catalogue| path.ends_with(catalogue)) {
            continue;
        }
        wrong.extend(long_functions(&lines).into_iter().map(|what| format!("{}:{what}", path.display())));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Functions longer than the limit. A function ends at the first closing brace in the column of its `fn`; rustfmt sees
/// to that.
fn long_functions(lines: &[&str]) -> Vec<String> {
    let is_fn = |l: &str| {
        let l = l.trim_start().trim_start_matches("pub(crate) ").trim_start_matches("pub(super) ");
        let l = l.trim_start_matches("pub ").trim_start_matches("const ").trim_start_matches("async ");
        l.starts_with("fn ")
    };
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate().filter(|(_, l)| is_fn(l)) {
        let indent = line.len() - line.trim_start().len();
        let closing = format!("{}}}", " ".repeat(indent));
        let length = lines[start..].iter().position(|l| *l == closing).map_or(0, |n| n + 1);
        if length > FUNCTION_LINES_MAX {
            found.push(format!("{}: a function of {length} lines", start + 1));
        }
    }
    found
}

#[test]
fn the_checks_themselves_see_a_violation() {
    assert_eq!(imported("{clock, policy::{A, B}, shim}; rest"), ["clock", "policy", "shim"]);
    assert_eq!(imported("proxy::Live;"), ["proxy"]);
    assert!(code("// tokio\nuse tokio::x;\n#[cfg(test)]\nmod tests {\nstd::fs").contains("use tokio"));
    assert!(!code("a\n#[cfg(test)]\nmod tests {\nstd::fs").contains("std::fs"));
    let long: Vec<String> = std::iter::once("fn f() {".into())
        .chain((0..80).map(|_| "    x;".into()))
        .chain(["}".into()])
        .collect();
    assert_eq!(long_functions(&long.iter().map(String::as_str).collect::<Vec<_>>()).len(), 1);
}

#[test]
fn the_top_level_holds_only_what_it_should() {
    let allowed = [
        "Cargo.toml",
        "Cargo.lock",
        "LICENSE",
        "README.md",
        "src",
        "units",
        "scripts",
        "config",
        "tests",
        "target",
    ];
    let extra: Vec<String> = fs::read_dir(root())
        .expect("the project")
        .map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.') && !allowed.contains(&name.as_str()))
        .collect();
    assert!(extra.is_empty(), "{extra:?}");
}
