//! The C API over TLS and with a secret: only what differs from other connections, such as its
//! addresses.
#![expect(unsafe_code, reason = "it is called as from C")]

use std::ffi::{CStr, CString, c_char};
use std::ptr::{null, null_mut};

use lockd::ffi::{
    lock_acquire, lock_close, lock_connect, lock_last_error, lock_mode, lock_serve_with, lock_server_address,
    lock_server_stop, lock_status,
};

use crate::authority::Authority;
use crate::clients::{HOST, address, tls_url};
use crate::support::server::Launch;

/// Opens a session and takes a lock; otherwise returns what lock_last_error says.
fn connect(url: &str) -> Result<(), String> {
    let url = CString::new(url).unwrap();
    // SAFETY: a string, and NULL for no name.
    let session = unsafe { lock_connect(url.as_ptr(), null::<c_char>(), 20_000) };
    if session.is_null() {
        // SAFETY: it returns a string that lives until this thread's next call.
        let why = unsafe { CStr::from_ptr(lock_last_error()) };
        return Err(why.to_str().unwrap().to_owned());
    }
    let exclusive = lock_mode::LOCK_EXCLUSIVE as u32;
    // SAFETY: a session that is open, a string, and NULL for no token.
    let status = unsafe { lock_acquire(session, c"x".as_ptr(), exclusive, 20_000, std::ptr::null_mut()) };
    assert_eq!(status, lock_status::LOCK_OK);
    // SAFETY: a session that is open and not used any more.
    unsafe { lock_close(session) };
    Ok(())
}

#[test]
fn a_session_connects_by_tls_and_with_the_secret() {
    let authority = Authority::new();
    let secret = authority.path("secret");
    std::fs::write(&secret, "a secret that is long enough").unwrap();
    let server = Launch::new()
        .listen("message+tls://127.0.0.1:0")
        .certified(&authority.issue(HOST))
        .option("--auth-token-file", secret.to_str().unwrap())
        .start();
    let with = |ca: &Authority, more: &str| connect(&tls_url(&server, &ca.ca(), more));
    let secret = format!("&auth-token-file={}", secret.display());
    for _ in 0..3 {
        // The lock ends with its session.
        with(&authority, &secret).unwrap();
    }
    let why = with(&authority, "").unwrap_err();
    assert!(why.contains("secret"), "{why}");
    let why = with(&Authority::new(), &secret).unwrap_err();
    assert!(why.contains("certificate"), "{why}");
    let port = address(&server, "message+tls").port();
    let why = connect(&format!("tcp://{HOST}:{port}")).unwrap_err();
    assert!(why.contains("write tls:// instead of tcp://"), "{why}");
    let why = connect("glockd://localhost:9999").unwrap_err();
    assert!(why.contains("clients speak `message`"), "{why}");
    let why = connect("tls://localhost?token=x").unwrap_err();
    assert!(why.contains("auth-token-file=FILE"), "{why}");
}

#[test]
fn a_program_serves_by_tls_and_with_a_secret() {
    let authority = Authority::new();
    let (certificate, secret) = (authority.issue(HOST), authority.path("secret"));
    std::fs::write(&secret, "a secret that is long enough").unwrap();
    let [certificate, secret] = [certificate, secret].map(|path| path.to_str().unwrap().to_owned());
    let options = [
        ("listen", "message+tls://127.0.0.1:0"),
        ("tls-cert", &certificate),
        ("tls-key", &certificate),
        ("auth-token-file", &secret),
    ];
    let [names, values] = [options.map(|option| option.0), options.map(|option| option.1)]
        .map(|texts| texts.map(|text| CString::new(text).unwrap()));
    let (names_in_c, values_in_c) =
        (names.each_ref().map(|s| s.as_ptr()), values.each_ref().map(|s| s.as_ptr()));
    let mut server = null_mut();
    // SAFETY: four strings each, which outlive the call, and a place for the server.
    let status =
        unsafe { lock_serve_with(null_mut(), names_in_c.as_ptr(), values_in_c.as_ptr(), 4, &raw mut server) };
    assert_eq!(status, lock_status::LOCK_OK);
    let mut address: [c_char; 300] = [0; 300];
    // SAFETY: a server that runs, and a buffer of that length.
    let status = unsafe { lock_server_address(server, 0, address.as_mut_ptr(), address.len()) };
    assert_eq!(status, lock_status::LOCK_OK);
    // SAFETY: it ends with a zero byte.
    let address = unsafe { CStr::from_ptr(address.as_ptr()) }.to_str().unwrap();
    let port = address.rsplit_once(':').unwrap().1;
    let url = format!("tls://{HOST}:{port}?ca={}", authority.ca().display());
    connect(&format!("{url}&auth-token-file={secret}")).unwrap();
    let why = connect(&url).unwrap_err();
    assert!(why.contains("secret"), "{why}");
    // SAFETY: a server that is not used any more.
    unsafe { lock_server_stop(server) };
}
