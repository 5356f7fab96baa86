//! The committed headers must match the sources. With `UPDATE_HEADERS=1` in the environment the
//! test writes them instead.

use std::path::{Path, PathBuf};

use cbindgen::{Builder, Config, DocumentationStyle, Language, Style};

/// In the order in which a reader of the header should meet them.
const SOURCES: [&str; 11] = [
    "status.rs",
    "modes.rs",
    "error_text.rs",
    "version.rs",
    "broker.rs",
    "session_registry.rs",
    "session.rs",
    "patient.rs",
    "locking.rs",
    "inspect.rs",
    "server.rs",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn generate(config: Config) -> String {
    let sources = SOURCES.iter().map(|name| root().join("src/ffi").join(name));
    let builder =
        sources.fold(Builder::new().with_config(config), |builder, source| builder.with_src(source));
    let mut header = Vec::new();
    builder.generate().expect("the sources can be read").write(&mut header);
    String::from_utf8(header).unwrap()
}

/// For C and C++.
fn c_config() -> Config {
    Config::from_file(root().join("cbindgen.toml")).unwrap()
}

/// For PHP's FFI, which has no preprocessor: it takes lines that begin with # for comments, except
/// for two directives of its own at the very beginning.
fn php_config() -> Config {
    let mut config = c_config();
    config.language = Language::C;
    config.style = Style::Both;
    config.cpp_compat = false;
    config.include_guard = None;
    config.sys_includes = Vec::new();
    config.documentation = false;
    config.documentation_style = DocumentationStyle::C;
    config.header = Some("#define FFI_SCOPE \"lockd\"\n#define FFI_LIB \"liblockd.so.1\"\n".to_owned());
    config
}

pub(crate) fn c_header() -> PathBuf {
    root().join("include/lockd.h")
}

pub(crate) fn php_header() -> PathBuf {
    root().join("bindings/php/lockd.h")
}

fn compare(path: &Path, generated: &str) {
    if std::env::var_os("UPDATE_HEADERS").is_some() {
        return std::fs::write(path, generated).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == generated,
        "{} does not match src/ffi: run UPDATE_HEADERS=1 cargo test --test c_abi headers",
        path.display()
    );
}

#[test]
fn lockd_h_matches_the_sources() {
    compare(&c_header(), &generate(c_config()));
}

#[test]
fn the_header_for_php_matches_the_sources_and_php_can_read_it() {
    let header = generate(php_config());
    compare(&php_header(), &header);
    let directives: Vec<&str> = header.lines().filter(|line| line.starts_with('#')).collect();
    assert_eq!(directives, [r#"#define FFI_SCOPE "lockd""#, r#"#define FFI_LIB "liblockd.so.1""#]);
    assert!(header.starts_with("#define FFI_SCOPE"), "PHP reads the directives only at the very beginning");
    assert!(!header.contains("extern \"C\""));
}
