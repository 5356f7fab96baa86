//! Warnings and refusals when other machines can reach a listener.

use rustix::process::Signal;

use crate::authority::Authority;
use crate::clients::HOST;
use crate::support::eventually;
use crate::support::server::Launch;

const OTHERS: [&str; 2] = ["--allow", "10.0.0.0/8"];

/// The line logged at the start about the only listener, without its address.
fn logged(launch: Launch, listen: &str, options: &[&str]) -> String {
    let server = launch.listen(listen).args(options.iter().copied()).start();
    let protocol = listen.split("://").next().unwrap();
    let about =
        |line: &&String| line.contains(&format!("{protocol}://0.0.0.0")) && !line.contains("listening");
    server.log().iter().filter(about).cloned().collect()
}

#[test]
fn the_log_explains_what_being_reachable_means() {
    let authority = Authority::new();
    let certificate = authority.issue(HOST);
    let ca = authority.ca();
    let secret = authority.path("secret");
    std::fs::write(&secret, "a secret that is long enough").unwrap();
    let secret = ["--auth-token-file", secret.to_str().unwrap()];
    let certified = || Launch::new().certified(&certificate);
    let (plain, tls) = ("message://0.0.0.0:0", "message+tls://0.0.0.0:0");

    let said = logged(Launch::new(), plain, &[]);
    assert!(said.contains("INFO") && said.contains("--allow"), "{said}");
    let said = logged(Launch::new(), plain, &OTHERS);
    assert!(said.contains("WARN") && said.contains("neither TLS nor a secret"), "{said}");
    let said = logged(Launch::new(), plain, &[OTHERS, secret].concat());
    assert!(said.contains("WARN") && said.contains("no TLS"), "{said}");
    let said = logged(certified(), tls, &OTHERS);
    assert!(said.contains("WARN") && said.contains("neither a secret"), "{said}");
    assert_eq!(logged(certified(), tls, &[OTHERS, secret].concat()), "");
    let with_ca = ["--tls-client-ca", ca.to_str().unwrap()];
    assert_eq!(logged(certified(), tls, &[OTHERS, with_ca].concat()), "");
}

#[test]
fn a_secret_cannot_be_gone_around_by_a_text_protocol() {
    let authority = Authority::new();
    let secret = authority.path("secret");
    std::fs::write(&secret, "a secret that is long enough").unwrap();
    let secret = secret.to_str().unwrap();
    for listen in ["glockd://0.0.0.0:0", "lockd://[::]:0", "glockd+ws://0.0.0.0:0"] {
        let launch = Launch::new().option("--listen", listen).option("--auth-token-file", secret);
        let (status, log) = launch.run();
        assert_eq!(status.code(), Some(2), "{log}");
        assert!(log.contains(listen) && log.contains("loopback"), "{log}");
    }
    // Every client there has shown a certificate.
    let ca = authority.ca();
    Launch::new()
        .listen("glockd+tls://0.0.0.0:0")
        .certified(&authority.issue(HOST))
        .option("--tls-client-ca", ca.to_str().unwrap())
        .option("--auth-token-file", secret)
        .start();
}

#[test]
fn a_secret_that_comes_later_does_not_leave_a_way_around_it() {
    let launch = Launch::new();
    let (configuration, secret) = (launch.path("lockd.toml"), launch.path("secret"));
    std::fs::write(&secret, "a secret that is long enough").unwrap();
    std::fs::write(&configuration, "listen = [\"glockd://0.0.0.0:0\"]\n").unwrap();
    let server = launch.expecting(1).option("--config", configuration.to_str().unwrap()).start();
    // Bound addresses stay bound, whatever the file says now.
    let changed =
        format!("listen = [\"glockd://127.0.0.1:0\"]\nauth-token-file = {secret:?}\nname-max = 3\n");
    std::fs::write(&configuration, changed).unwrap();
    server.signal(Signal::HUP);
    eventually("it is refused", || {
        server.log().iter().any(|line| line.contains("auth-token-file") && line.contains("0.0.0.0"))
    });
    // Nothing in the file takes effect.
    assert_eq!(server.glockd().ask("g long"), "1 Lock Get Success: long\r\n");
}
