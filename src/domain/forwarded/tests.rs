use proptest::{collection::vec, prelude::*};

use super::*;

const BOTH: [ForwardedHeader; 2] = [ForwardedHeader::XForwardedFor, ForwardedHeader::Forwarded];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Trusts `10.0.0.0/8` and `2001:db8:1::/48`.
fn proxies(header: ForwardedHeader) -> TrustedProxies {
    let networks = ["10.0.0.0/8", "2001:db8:1::/48"].map(|it| parse_network(it).unwrap());
    TrustedProxies::new(&networks, header)
}

fn client(header: ForwardedHeader, peer: &str, lines: &[&str]) -> IpAddr {
    proxies(header).client(ip(peer), lines.iter().map(|line| line.as_bytes()))
}

#[track_caller]
fn assert_client(header: ForwardedHeader, lines: &[&str], expected: &str) {
    let found = client(header, "10.0.0.1", lines);
    assert_eq!(found, ip(expected), "{lines:?}");
}

#[test]
fn who_is_not_trusted_is_not_believed() {
    for header in BOTH {
        for line in ["1.2.3.4", "for=1.2.3.4"] {
            assert_eq!(client(header, "192.0.2.1", &[line]), ip("192.0.2.1"));
            assert_eq!(client(header, "2001:db8::1", &[line]), ip("2001:db8::1"));
        }
        let nobody = TrustedProxies::none();
        let peer = ip("10.0.0.1");
        assert_eq!(nobody.client(peer, [&b"1.2.3.4"[..]].into_iter()), peer);
    }
}

#[test]
fn the_way_is_walked_from_its_end_over_trusted_proxies() {
    let header = ForwardedHeader::XForwardedFor;
    for (lines, expected) in [
        (&["198.51.100.7"][..], "198.51.100.7"),
        (&["6.6.6.6, 198.51.100.7"], "198.51.100.7"),
        (
            &["6.6.6.6, 198.51.100.7, 10.0.0.2,10.0.0.3"],
            "198.51.100.7",
        ),
        // Several lines are one list.
        (&["6.6.6.6", "198.51.100.7", "10.0.0.2"], "198.51.100.7"),
        (&["6.6.6.6, 198.51.100.7", "", " , "], "198.51.100.7"),
        // Everybody on the way is trusted: it began at the first of them.
        (&["10.0.0.9, 10.0.0.2"], "10.0.0.9"),
        (&[], "10.0.0.1"),
        (&[""], "10.0.0.1"),
        (&["2001:db8:1::5, 2001:db8:1::6"], "2001:db8:1::5"),
        (&["2001:db8:2::5, 2001:db8:1::6"], "2001:db8:2::5"),
        (&["::ffff:198.51.100.7, ::ffff:10.0.0.2"], "198.51.100.7"),
    ] {
        assert_client(header, lines, expected);
    }
    let mapped = client(header, "::ffff:10.0.0.1", &["198.51.100.7"]);
    assert_eq!(mapped, ip("198.51.100.7"));
}

#[test]
fn addresses_have_many_forms() {
    for (written, address) in [
        ("198.51.100.7:443", "198.51.100.7"),
        ("198.51.100.7:_gazonk", "198.51.100.7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("[2001:db8::7]:443", "2001:db8::7"),
        ("[::ffff:198.51.100.7]:443", "198.51.100.7"),
        ("2001:DB8::7", "2001:db8::7"),
    ] {
        assert_client(ForwardedHeader::XForwardedFor, &[written], address);
        let quoted = format!("for=\"{written}\"");
        assert_client(ForwardedHeader::Forwarded, &[&quoted], address);
    }
    for line in [
        "for=198.51.100.7",
        "For=198.51.100.7;proto=https;by=203.0.113.43",
        "proto=http ; FOR=\"198.51.100.7:80\" ;; host=x ;",
        "for=\"198.51.100.\\7\"",
        "for=6.6.6.6, for=198.51.100.7;host=\"a, for=6.6.6.6\", for=10.0.0.2",
        "for=6.6.6.6, for=198.51.100.7;host=\"a\\\", for=6.6.6.6\"",
        "for=198.51.100.7;host=\"a\\\\\"",
        // No beginning spoils the end.
        "for=\"6.6.6.6, for=198.51.100.7",
        "\\\", for=198.51.100.7",
    ] {
        assert_client(ForwardedHeader::Forwarded, &[line], "198.51.100.7");
    }
}

#[test]
fn what_names_nobody_stops_at_the_last_who_was_named() {
    for bad in [
        "unknown",
        "_hidden",
        "x",
        "1.2.3",
        "1.2.3.4.5",
        "01.2.3.4",
        "1.2.3.4:",
        "1.2.3.4:x",
        "1.2.3.4:65536",
        "1.2.3.4:+1",
        "1.2.3.4:_",
        "1.2.3.4 5.6.7.8",
        "[1.2.3.4]",
        "[::1",
        "[::1]x",
        "[::1]443",
        "fe80::1%eth0",
        "\"1.2.3.4\"",
        "for=1.2.3.4",
        "\u{662f}",
    ] {
        for lines in [vec![bad], vec!["6.6.6.6", bad]] {
            assert_client(ForwardedHeader::XForwardedFor, &lines, "10.0.0.1");
        }
        let after = format!("6.6.6.6, {bad}, 10.0.0.2");
        assert_client(ForwardedHeader::XForwardedFor, &[&after], "10.0.0.2");
    }
    for bad in [
        "1.2.3.4",
        "for",
        "for=",
        "for=unknown",
        "for=_hidden",
        "for=\"unknown:80\"",
        "for=1.2.3.4;for=1.2.3.5",
        "for=1.2.3.4 x",
        "for=1.2.3.4\"",
        "for=\"1.2.3.4\"x",
        "for=\"1.2.3.4",
        "for=\"1.2.3.4\\\"",
        "for= 1.2.3.4",
        "by=1.2.3.4",
        "proto=https",
        ";",
        "x;for=1.2.3.4",
    ] {
        assert_client(ForwardedHeader::Forwarded, &[bad], "10.0.0.1");
        let after = format!("for=6.6.6.6, {bad}, for=10.0.0.2");
        assert_client(ForwardedHeader::Forwarded, &[&after], "10.0.0.2");
    }
}

#[test]
fn only_the_header_that_was_chosen_is_understood() {
    assert_client(ForwardedHeader::Forwarded, &["198.51.100.7"], "10.0.0.1");
    let line = "for=198.51.100.7";
    assert_client(ForwardedHeader::XForwardedFor, &[line], "10.0.0.1");
}

#[test]
fn work_is_bounded() {
    let way = |hops: usize| vec!["10.0.0.2"; hops].join(",");
    let header = ForwardedHeader::XForwardedFor;
    let near = format!("198.51.100.7,{}", way(MAX_HOPS - 1));
    assert_client(header, &[&near], "198.51.100.7");
    let far = format!("198.51.100.7,{}", way(MAX_HOPS));
    assert_client(header, &[&far], "10.0.0.2");
    assert_client(header, &vec!["10.0.0.2"; 10_000], "10.0.0.2");
    assert_client(header, &[&",".repeat(1_000_000)], "10.0.0.1");
    for long in ["x", "\"", "\\", "\\\"", "\"a\""].map(|it| it.repeat(1_000_000)) {
        for header in BOTH {
            assert_client(header, &[&long], "10.0.0.1");
        }
        // What the nearest proxy wrote counts, whatever stands before it.
        let line = format!("{long}, for=198.51.100.7");
        assert_client(ForwardedHeader::Forwarded, &[&line], "198.51.100.7");
    }
    let padded = format!("for=198.51.100.7;host=\"{}\"", "x".repeat(MAX_ELEMENT));
    assert_client(ForwardedHeader::Forwarded, &[&padded], "10.0.0.1");
}

#[test]
fn networks_are_written_as_they_are() {
    for (text, inside, outside) in [
        ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
        ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
        ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::1"),
        ("::1", "::1", "::2"),
        ("::ffff:192.0.2.7", "192.0.2.7", "192.0.2.8"),
        ("::ffff:192.0.2.0/120", "192.0.2.255", "192.0.3.0"),
        ("192.0.2.7", "::ffff:192.0.2.7", "::192.0.2.7"),
    ] {
        let network = parse_network(text).unwrap();
        let proxies = TrustedProxies::new(&[network], ForwardedHeader::Forwarded);
        assert!(proxies.trusts(ip(inside)), "{text} {inside}");
        assert!(!proxies.trusts(ip(outside)), "{text} {outside}");
    }
    for bad in [
        "",
        "*",
        "proxy.example.com",
        "10.0.0.1/8",
        "10.0.0.0/33",
        "10.0.0.0/",
        "10.0.0.0/255.0.0.0",
        "10.0.0.1:80",
        "[::1]",
        "2001:db8::1/32",
        "0.0.0.0/0",
        "::/0",
        "::ffff:0:0/96",
        "::ffff:0.0.0.0/95",
    ] {
        assert_eq!(parse_network(bad), None, "{bad}");
    }
}

/// How an honest proxy of this kind writes down whom it heard.
fn element(header: ForwardedHeader, heard: IpAddr, form: u8) -> String {
    let bracketed = match heard {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    };
    match (header, form % 3) {
        (ForwardedHeader::XForwardedFor, 0) => heard.to_string(),
        (ForwardedHeader::XForwardedFor, 1) => bracketed,
        (ForwardedHeader::XForwardedFor, _) => format!("{bracketed}:4711"),
        (ForwardedHeader::Forwarded, 0) => format!("for=\"{bracketed}\""),
        (ForwardedHeader::Forwarded, 1) => {
            format!("by=10.0.0.1; for=\"{bracketed}:4711\";proto=https")
        }
        // The host is the client's word, quoted as it must be.
        (ForwardedHeader::Forwarded, _) => {
            format!("For=\"{bracketed}\";host=\"\\\",for=6.6.6.6\\\\\"")
        }
    }
}

fn some_header() -> impl Strategy<Value = ForwardedHeader> {
    prop_oneof![
        Just(ForwardedHeader::XForwardedFor),
        Just(ForwardedHeader::Forwarded)
    ]
}

fn outsider() -> impl Strategy<Value = IpAddr> {
    any::<IpAddr>().prop_filter("is a proxy", |address| {
        !proxies(ForwardedHeader::Forwarded).trusts(*address)
    })
}

fn insider() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|n| Ipv4Addr::from(0x0a00_0000 | n >> 8).into()),
        any::<u64>()
            .prop_map(|n| { Ipv6Addr::from(0x2001_0db8_0001_0000 << 64 | u128::from(n)).into() }),
    ]
}

/// Anything a client may send: bytes, and pieces of what counts.
fn forged() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let piece = prop_oneof![
        vec(any::<u8>(), 0..8),
        prop::sample::select(vec![
            "for=", "\"", "\\", ",", ";", "6.6.6.6", "10.0.0.2", "[", "]", "for=\"", "=", " ",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    let broken = vec(piece, 0..12).prop_map(|pieces| pieces.concat());
    let whole = prop::sample::select(vec!["6.6.6.6", "10.0.0.2", "for=6.6.6.6", "for=10.0.0.2"]);
    let whole = vec(whole, 1..4).prop_map(|it| it.join(", ").into_bytes());
    vec(prop_oneof![broken, whole], 0..4)
}

proptest! {
    #[test]
    fn a_peer_that_is_not_trusted_has_its_own_address(
        header in some_header(), peer in outsider(), lines in forged(),
    ) {
        let lines = lines.iter().map(Vec::as_slice);
        prop_assert_eq!(proxies(header).client(peer, lines), peer.to_canonical());
    }

    #[test]
    fn no_client_behind_trusted_proxies_is_taken_for_another(
        header in some_header(),
        client in outsider(),
        way in vec((insider(), any::<bool>(), any::<u8>()), 1..6),
        lines in forged(),
    ) {
        let (mut lines, mut heard) = (lines, client);
        for (proxy, own_line, form) in &way {
            let said = element(header, heard, *form);
            match lines.last_mut() {
                Some(line) if !own_line => {
                    line.extend_from_slice(b", ");
                    line.extend_from_slice(said.as_bytes());
                }
                _ => lines.push(said.into_bytes()),
            }
            heard = *proxy;
        }
        let lines = lines.iter().map(Vec::as_slice);
        prop_assert_eq!(proxies(header).client(heard, lines), client.to_canonical());
    }

    #[test]
    fn nothing_that_is_sent_fails(header in some_header(), peer in any::<IpAddr>(), lines in forged()) {
        let _ = proxies(header).client(peer, lines.iter().map(Vec::as_slice));
    }
}
