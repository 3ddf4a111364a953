//! Which proxy Python's `requests` would send a review through: `requests.utils.should_bypass_proxies` and
//! `urllib.request.getproxies_environment`, on Linux.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::address::Address;
use super::environment::Environment;
use super::report::Report;

const CHECK: &str = "proxy";

/// The proxy that an address is called through, if any, without its credentials.
pub fn proxy_of(address: &Address, environment: &Environment) -> Option<String> {
    let proxies = proxies(environment);
    if is_bypassed(address, environment, &proxies) {
        return None;
    }
    let (scheme, host) = (address.scheme(), &address.host);
    let keys = [
        format!("{scheme}://{host}"),
        scheme.to_owned(),
        format!("all://{host}"),
        "all".to_owned(),
    ];
    let proxy = keys.iter().find_map(|key| proxies.get(key))?;
    let without = proxy.rsplit_once('@').map_or(proxy.as_str(), |(_, at)| at);
    Some(without.to_owned())
}

/// Looks at whether reviews go where the address says.
pub fn check(address: &Address, environment: &Environment, report: &mut Report) {
    let host = &address.host;
    let Some(proxy) = proxy_of(address, environment) else {
        let any = ["https", "http", "all"];
        let set = proxies(environment);
        let message = match any.iter().any(|scheme| set.contains_key(*scheme)) {
            true => format!("NO_PROXY covers {host}"),
            false => "no proxy is set".to_owned(),
        };
        report.ok(CHECK, message);
        return;
    };
    let variable = match environment.get("no_proxy") {
        // `requests` then looks at no other.
        Some(_) => "no_proxy, in small letters,",
        None => "NO_PROXY",
    };
    let mend = format!("add {host} to {variable} of the dstack server");
    let message = format!("reviews to {host} go through the proxy {proxy}");
    if address.is_loopback() {
        let message = format!("{message}, whose own loopback is another");
        report.fail(CHECK, message, mend);
    } else {
        let mend = format!("{mend}, unless that is meant; what follows is tried without the proxy");
        report.warn(CHECK, message, mend);
    }
}

/// Scheme to proxy; lower-case names win over upper-case ones, and an empty one unsets.
fn proxies(environment: &Environment) -> BTreeMap<String, String> {
    let mut proxies = BTreeMap::new();
    for (name, value) in environment.iter() {
        let name = name.to_lowercase();
        if let (Some(scheme), false) = (name.strip_suffix("_proxy"), value.is_empty()) {
            proxies.insert(scheme.to_owned(), value.to_owned());
        }
    }
    for (name, value) in environment.iter() {
        if let Some(scheme) = name.strip_suffix("_proxy") {
            match value {
                "" => proxies.remove(&scheme.to_lowercase()),
                value => proxies.insert(scheme.to_lowercase(), value.to_owned()),
            };
        }
    }
    proxies
}

fn is_bypassed(
    address: &Address,
    environment: &Environment,
    proxies: &BTreeMap<String, String>,
) -> bool {
    let host = address.host.as_str();
    let with_port = format!("{host}:{}", address.port);
    let no_proxy = environment.get("no_proxy");
    let no_proxy = no_proxy.or_else(|| environment.get("NO_PROXY"));
    let listed = no_proxy.unwrap_or_default().replace(' ', "");
    let mut listed = listed.split(',').filter(|entry| !entry.is_empty());
    let by_requests = match host.parse::<Ipv4Addr>() {
        Ok(ip) => listed.any(|entry| match cidr(entry) {
            Some(network) => network.contains(&ip),
            None => entry == host,
        }),
        Err(_) => listed.any(|entry| {
            let entry = entry.trim_start_matches('.');
            is_or_ends(host, entry) || is_or_ends(&with_port, entry)
        }),
    };
    by_requests
        || proxies
            .get("no")
            .is_some_and(|no| is_bypassed_by_urllib(host, no))
}

/// `urllib.request.proxy_bypass_environment`, which alone knows `*`.
fn is_bypassed_by_urllib(host: &str, no_proxy: &str) -> bool {
    let entries = no_proxy.split(',').map(str::trim);
    let mut entries = entries.filter(|entry| !entry.is_empty());
    no_proxy == "*"
        || entries.any(|entry| is_or_ends(host, &entry.trim_start_matches('.').to_lowercase()))
}

fn is_or_ends(host: &str, entry: &str) -> bool {
    let above = host.strip_suffix(entry);
    above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
}

/// `requests.utils.is_valid_cidr`: a mask of 0 is none.
fn cidr(entry: &str) -> Option<Ipv4Net> {
    let network: Ipv4Net = entry.parse().ok()?;
    (entry.contains('/') && network.prefix_len() > 0).then_some(network)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::none("https://localhost:8443", [("A", "b")].as_slice(), None)]
    #[case::https("https://localhost:8443", &[("HTTPS_PROXY", "http://p:1")], Some("http://p:1"))]
    #[case::other_scheme("https://localhost:8443", &[("HTTP_PROXY", "http://p:1")], None)]
    #[case::all("http://h", &[("ALL_PROXY", "socks5://p")], Some("socks5://p"))]
    #[case::own_before_all("https://h", &[("ALL_PROXY", "all"), ("https_proxy", "own")], Some("own"))]
    #[case::lower_wins("https://h", &[("HTTPS_PROXY", "up"), ("https_proxy", "low")], Some("low"))]
    #[case::lower_unsets("https://h", &[("HTTPS_PROXY", "up"), ("https_proxy", "")], None)]
    #[case::credentials("https://h", &[("HTTPS_PROXY", "http://u:p@x:1")], Some("x:1"))]
    #[case::named("https://localhost:1", &[("HTTPS_PROXY", "p"), ("NO_PROXY", "a, localhost")], None)]
    #[case::lower_named("https://h", &[("HTTPS_PROXY", "p"), ("NO_PROXY", "h"), ("no_proxy", "x")], Some("p"))]
    #[case::port("https://h:1", &[("HTTPS_PROXY", "p"), ("NO_PROXY", "h:1")], None)]
    #[case::other_port("https://h:1", &[("HTTPS_PROXY", "p"), ("NO_PROXY", "h:2")], Some("p"))]
    #[case::domain("https://a.svc.local", &[("HTTPS_PROXY", "p"), ("NO_PROXY", ".svc.local")], None)]
    #[case::suffix("https://notlocal", &[("HTTPS_PROXY", "p"), ("NO_PROXY", "local")], Some("p"))]
    #[case::star("https://h", &[("HTTPS_PROXY", "p"), ("NO_PROXY", "*")], None)]
    #[case::star_in_list("https://h", &[("HTTPS_PROXY", "p"), ("NO_PROXY", "a,*")], Some("p"))]
    #[case::cidr("https://10.1.2.3", &[("HTTPS_PROXY", "p"), ("NO_PROXY", "10.0.0.0/8")], None)]
    #[case::no_cidr("https://10.1.2.3", &[("HTTPS_PROXY", "p"), ("NO_PROXY", "10.0.0.0")], Some("p"))]
    #[case::name_for_ip("https://127.0.0.1", &[("HTTPS_PROXY", "p"), ("NO_PROXY", "localhost")], Some("p"))]
    fn a_proxy_is_chosen_as_requests_does(
        #[case] uri: &str,
        #[case] variables: &[(&str, &str)],
        #[case] expected: Option<&str>,
    ) {
        let mut environment = Environment::default();
        for (name, value) in variables {
            environment.set(name, (*value).to_owned());
        }
        let address = Address::parse(uri).unwrap();
        assert_eq!(proxy_of(&address, &environment).as_deref(), expected);
    }
}
