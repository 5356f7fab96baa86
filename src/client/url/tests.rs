//! Addresses as users write them, right and wrong, and the lists and groups that are made of them.

use super::*;

fn endpoint(text: &str) -> Endpoint {
    let url: ServerUrl = text.parse().unwrap();
    only_endpoint(&url).clone()
}

fn only_endpoint(url: &ServerUrl) -> &Endpoint {
    let [place] = url.places() else { panic!("several places: {url}") };
    &place.endpoint
}

fn tcp(host: &str, port: u16) -> Endpoint {
    Endpoint::Tcp { host: host.to_owned(), port }
}

#[test]
fn every_form_of_address_is_parsed() {
    assert_eq!(endpoint("tcp://localhost:1"), tcp("localhost", 1));
    assert_eq!(endpoint(" tcp://example.org\n"), tcp("example.org", 20934));
    assert_eq!(endpoint("message://127.0.0.1:65535"), tcp("127.0.0.1", 65535));
    assert_eq!(endpoint("tcp://[::1]:7"), tcp("::1", 7));
    assert_eq!(endpoint("tcp://[::1]"), tcp("::1", 20934));
    for text in ["unix:/run/lockd.sock", "unix:///run/lockd.sock", "message+unix:/run/lockd.sock"] {
        assert_eq!(endpoint(text), Endpoint::Unix("/run/lockd.sock".into()), "{text}");
    }
}

#[test]
fn files_follow_the_host_and_are_not_part_of_the_address() {
    let url: ServerUrl = "tls://a:1?ca=/b=c&cert=d&key=e?&auth-token-file=/f".parse().unwrap();
    let [ca, cert, key] = ["/b=c", "d", "e?"].map(|path| Some(PathBuf::from(path)));
    assert_eq!((url.tls(), url.address()), (Some(&ClientFiles { ca, cert, key }), "tls://a:1"));
    assert_eq!((only_endpoint(&url), &url.auth_token_file), (&tcp("a", 1), &Some("/f".into())));
    for text in ["tls://a", "message+tls://a:20934"] {
        let url: ServerUrl = text.parse().unwrap();
        assert_eq!((url.tls(), url.address()), (Some(&ClientFiles::default()), text));
    }
    let url: ServerUrl = "tcp://a?auth-token-file=/nonexistent/secret".parse().unwrap();
    assert!(url.tls().is_none() && url.secret().err().unwrap().contains("/nonexistent/secret"));
    assert!(!url.resumes());
    for text in ["tcp://a:1?resume", "tls://a:1?ca=/x&resume", "tcp://a:1?resume&auth-token-file=/f"] {
        let url: ServerUrl = text.parse().unwrap();
        assert!(url.resumes() && url.address().ends_with("://a:1"), "{text}");
    }
    let url: ServerUrl = "unix:/a?resume".parse().unwrap();
    assert_eq!(
        (url.resumes(), url.address(), only_endpoint(&url)),
        (true, "unix:/a", &Endpoint::Unix("/a".into()))
    );
    let url: ServerUrl = "unix:/a?b".parse().unwrap();
    assert_eq!((url.address(), only_endpoint(&url)), ("unix:/a?b", &Endpoint::Unix("/a?b".into())));
}

#[test]
fn a_malformed_address_says_why() {
    let problem = |text: &str| ServerUrl::parse_list(text).unwrap_err().to_string();
    for (text, part) in [
        ("", "tcp://"),
        ("glockd://localhost:1", "clients speak `message`"),
        ("lockd://localhost:2626", "tcp://HOST:PORT"),
        ("glockd+tls://localhost:2626", "tls://HOST:PORT"),
        ("lockd+unix:/run/lockd.sock", "unix:/PATH"),
        ("http://localhost:8080/", "neither HTTP nor WebSocket"),
        ("wss://localhost:1", "tcp://HOST:PORT"),
        ("ssl://localhost:1", "tls://HOST:PORT"),
        ("localhost:1", "did you mean tcp://localhost:1?"),
        ("127.0.0.1", "did you mean tcp://127.0.0.1?"),
        ("[::1]:7", "did you mean tcp://[::1]:7?"),
        ("/run/lockd.sock", "did you mean unix:/run/lockd.sock?"),
        ("localhost:+1", "must begin with tcp://"),
        ("a b", "must begin with tcp://"),
        ("tcp://", "HOST"),
        ("tcp://:1", "HOST"),
        ("tcp://a/b", "HOST"),
        ("tcp://a:", "port"),
        ("tcp://a:0", "port"),
        ("tcp://a:+80", "port"),
        ("tcp://a:-1", "port"),
        ("tcp://a:080", "port"),
        ("tcp://a:00080", "port"),
        ("tcp://a:0x50", "port"),
        ("tcp://a:65536", "port"),
        ("tcp://a:100000", "port"),
        ("tcp://a:1/", "port"),
        ("tcp://::1", "[ ]"),
        ("tcp://[::1", "]"),
        ("tcp://[::1]1", ":PORT"),
        ("unix:lockd.sock", "begin with /"),
        ("tcp://a,", "tcp://"),
        ("tcp://a, tcp://a:20934", "twice"),
        ("tcp://a?ca=/x", "for tls://"),
        ("tls://a?", "after ?"),
        ("tls://a?ca", "after ?"),
        ("tls://a?ca=", "after ?"),
        ("tls://a?token=x", "after ?"),
        ("tls://a?ca=/x&ca=/y", "twice"),
        ("tcp://a?resume&resume", "twice"),
        ("tcp://a?resume=1", "after ?"),
        ("unix:/a, unix:/a?resume", "twice"),
        ("tls://a?key=/x", "cert="),
        ("message+ws://a", "tls://"),
    ] {
        assert!(problem(text).contains(part), "{text}: {}", problem(text));
    }
}

#[test]
fn a_list_keeps_the_addresses_as_they_are_written() {
    let servers = ServerUrl::parse_list("tcp://a , unix:/b").unwrap();
    assert_eq!(servers.iter().map(ServerUrl::as_str).collect::<Vec<_>>(), ["tcp://a", "unix:/b"]);
}

/// The places of each server of this list.
fn places(list: &str) -> Vec<Vec<String>> {
    let servers = ServerUrl::parse_list(list).unwrap();
    servers.iter().map(|server| server.places().iter().map(|place| place.label.clone()).collect()).collect()
}

#[test]
fn a_part_without_a_scheme_is_another_place_of_the_server_before_it() {
    let cases: [(&str, &[&[&str]]); 8] = [
        ("tcp://a:1,b:2,c", &[&["a:1", "b:2", "c"]]),
        (" tcp://a , b ", &[&["a", "b"]]),
        ("tcp://a,b,tcp://c,d", &[&["a", "b"], &["c", "d"]]),
        ("tcp://a,b?resume,tls://c,d?ca=/x", &[&["a", "b"], &["c", "d"]]),
        ("tcp://a,tcp://b,c", &[&["tcp://a"], &["b", "c"]]),
        ("tcp://[::1]:7,[::1]", &[&["[::1]:7", "[::1]"]]),
        ("unix:/x,tcp://a,b,unix:/y", &[&["unix:/x"], &["a", "b"], &["unix:/y"]]),
        ("message://a,b", &[&["a", "b"]]),
    ];
    for (list, expected) in cases {
        assert_eq!(places(list), expected, "{list}");
    }
    let url: ServerUrl = "tls://a:1,b?ca=/x&resume".parse().unwrap();
    let endpoints: Vec<&Endpoint> = url.places().iter().map(|place| &place.endpoint).collect();
    assert_eq!(endpoints, [&tcp("a", 1), &tcp("b", 20934)]);
    assert!(url.is_group() && url.resumes() && url.tls().is_some_and(|tls| tls.ca.is_some()));
    // One address by itself keeps its commas, as before.
    let url: ServerUrl = "tls://a?ca=/x,y".parse().unwrap();
    assert_eq!((url.is_group(), url.tls().unwrap().ca.as_deref()), (false, Some("/x,y".as_ref())));
    assert_eq!(endpoint("unix:/a,b"), Endpoint::Unix("/a,b".into()));
}

#[test]
fn a_malformed_group_says_why() {
    for (list, part) in [
        ("tcp://a,,b", "HOST"),
        ("tcp://a,b/c", "HOST"),
        ("tcp://a,b:0", "port"),
        ("tcp://a,::1", "[ ]"),
        ("tcp://a?resume,b", "after the last place"),
        ("tls://a,b?ca=/x,c", "after the last place"),
        ("tcp://a,b,a:20934", "twice"),
        ("tcp://a,b,tcp://c,b:20934", "twice"),
        ("unix:/a,b", "did you mean tcp://b?"),
        ("tcp://a,/run/lockd.sock", "did you mean unix:/run/lockd.sock?"),
        ("a:1,b:2", "did you mean tcp://a:1?"),
        ("glockd://a,b", "clients speak `message`"),
    ] {
        let problem = ServerUrl::parse_list(list).unwrap_err().to_string();
        assert!(problem.contains(part), "{list}: {problem}");
    }
    for (text, part) in [("tcp://a,tcp://b", "list of servers"), ("a,b", "did you mean tcp://a,b?")] {
        let problem = text.parse::<ServerUrl>().unwrap_err().to_string();
        assert!(problem.contains(part), "{text}: {problem}");
    }
}

/// Expected values that other clients can be tested against.
#[test]
fn names_are_spread_by_the_sorted_places_of_a_group() {
    for (text, address) in [
        ("tcp://b:20934,a:20934", "tcp://a:20934,b:20934"),
        ("tcp://a:20934,b:20934?resume", "tcp://a:20934,b:20934"),
        (
            "tcp://lock2.example.org,lock1.example.org:20934,10.0.0.9:7",
            "tcp://10.0.0.9:7,lock1.example.org:20934,lock2.example.org",
        ),
        ("tls://[::1]:7,a,A?ca=/x", "tls://A,[::1]:7,a"),
        ("message://b,a", "message://a,b"),
        ("tcp://a:9,a:10", "tcp://a:10,a:9"),
        ("tcp://a", "tcp://a"),
    ] {
        assert_eq!(text.parse::<ServerUrl>().unwrap().address(), address, "{text}");
    }
    let list = "tcp://a1:20934,a2:20934,tcp://b2:20934,b1:20934?resume,tcp://c1:20934";
    let servers = ServerUrl::parse_list(list).unwrap();
    for (name, server) in [("", 2), ("foo", 1), ("bar", 2), ("job:17", 2), ("job:18", 1), ("job:21", 0)] {
        assert_eq!(ServerUrl::index_for(&servers, name.as_bytes()), server, "{name}");
    }
}

#[test]
fn each_place_has_an_address_that_is_for_it_alone() {
    for (text, expected) in [
        ("tcp://a:1", &[("a:1", "tcp://a:1")][..]),
        (
            "tls://b:1, [::1]:2,c?ca=/x&resume",
            &[
                ("b:1", "tls://b:1?ca=/x&resume"),
                ("[::1]:2", "tls://[::1]:2?ca=/x&resume"),
                ("c", "tls://c?ca=/x&resume"),
            ],
        ),
        ("unix:/a?resume", &[("unix:/a", "unix:/a?resume")]),
        ("unix:///a?b", &[("unix:///a?b", "unix:///a?b")]),
    ] {
        let servers = ServerUrl::parse_list(text).unwrap();
        let [server] = servers.as_slice() else { panic!("several servers: {text}") };
        let found = server.each_place();
        let found: Vec<_> = found.iter().map(|(place, alone)| (place.as_str(), alone.as_str())).collect();
        assert_eq!(found, expected, "{text}");
        for (_, alone) in expected {
            assert!(!alone.parse::<ServerUrl>().unwrap().is_group(), "{alone}");
        }
    }
}
