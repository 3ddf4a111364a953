//! Kubernetes' libraries: the examples of its documentation, and the edges around them.

use rstest::rstest;

use super::super::holds;

#[rstest]
// Regular expressions.
#[case("'abc 123'.find('[0-9]+') == '123' && 'abc'.find('[0-9]+') == ''")]
#[case("'123 abc 456'.findAll('[0-9]+') == ['123', '456']")]
#[case("'123 abc 456'.findAll('[0-9]+', 1) == ['123'] && '1'.findAll('[0-9]', 0) == []")]
#[case("'123 abc 456'.findAll('[0-9]+', -1) == ['123', '456'] && 'abc'.findAll('[0-9]') == []")]
#[case("name.find(params.pattern) == 'train' && name.find(user.substring(0, 1)) == 'a'")]
#[case("'baaac'.findAll('a*') == ['', 'aaa', '']")]
// Lists.
#[case(
    "[1, 3].isSorted() && ['a', 'b', 'b'].isSorted() && ![2.0, 1.0].isSorted() && [].isSorted()"
)]
#[case("[1, 3].sum() == 4 && [1.0, 3.0].sum() == 4.0 && [].sum() == 0")]
#[case("['1m', '1s'].map(d, duration(d)).sum() == duration('61s')")]
#[case(
    "[1, 3].min() == 1 && [1, 3].max() == 3 && ['b', 'a'].min() == 'a' && [1, 2.5].max() == 2.5"
)]
#[case("[1, 2, 2, 3].indexOf(2) == 1 && ['a', 'b'].indexOf('c') == -1 && [].indexOf(1) == -1")]
#[case("[1, 2, 2, 3].lastIndexOf(2) == 2 && ['a'].lastIndexOf('b') == -1")]
#[case("spec.matrix.indexOf([3]) == 1 && spec.matrix[0].sum() == 3 && spec.matrix[0].max() == 2")]
#[case("spec.configuration.groups.map(g, g.replicas.max).sum() == 4")]
// The strings extension's functions keep their meaning.
#[case("'hello mellow'.indexOf('ello') == 1 && 'hello mellow'.indexOf('jello') == -1")]
#[case(
    "'hello mellow'.indexOf('', 2) == 2 && 'abc'.indexOf('', 20) == 3 && 'héllo'.indexOf('l') == 2"
)]
#[case("'héllo héllo'.indexOf('l', 4) == 8 && 'hello mellow'.lastIndexOf('ello') == 7")]
#[case("'hello mellow'.lastIndexOf('ello', 6) == 1 && 'abc'.lastIndexOf('') == 3")]
#[case("'bananananana'.lastIndexOf('nana', 7) == 6 && 'aéa'.lastIndexOf('é', 2) == 1")]
#[case("'a,b,'.split(',') == ['a', 'b', ''] && ''.split(',') == [''] && ''.split('') == []")]
#[case("'aé'.split('') == ['a', 'é'] && 'a,b,c'.split(',', 2) == ['a', 'b,c']")]
#[case(
    "'abc'.split('', 2) == ['a', 'bc'] && 'a,b'.split(',', 0) == [] && 'a,b'.split(',', -1) == ['a', 'b']"
)]
// Sets.
#[case("sets.contains([1, 2], [2.0]) && sets.contains([1], []) && !sets.contains([1], [1, 2])")]
#[case("sets.equivalent([1, 1], [1]) && !sets.equivalent([1, 2], [1]) && sets.equivalent([], [])")]
#[case(
    "sets.intersects([[1], [2]], [[2]]) && !sets.intersects([1], []) && !sets.intersects([1], [2])"
)]
#[case("sets.contains(['eu-1', 'us-2', 'eu-3'], spec.profile.regions)")]
#[case("sets.equivalent(spec.matrix, [[3], [1, 2]])")]
fn regular_expressions_lists_and_sets(#[case] expression: &str) {
    assert_eq!(holds(expression), Ok(true), "{expression}");
}

#[rstest]
#[case("[].min() == 1", "min(): the list must not be empty")]
#[case(
    "[1, 'a'].max() == 1",
    "max(): the elements cannot be compared with each other"
)]
#[case("[{}, {}].isSorted()", "isSorted(): the elements cannot be compared")]
#[case("['a'].sum() == 'a'", "sum(): only numbers and durations have a sum")]
#[case(
    "[1, 2.5].sum() == 3.5",
    "sum(): the elements are of several types: convert them"
)]
#[case(
    "[9223372036854775807, 1].sum() == 1",
    "the number does not fit 64 bits"
)]
#[case("'abc'.indexOf('b', 20) == 1", "indexOf(): index out of range")]
#[case("'abc'.lastIndexOf('b', -1) == 1", "lastIndexOf(): index out of range")]
#[case(
    "quantity('1.5').asInteger() == 1",
    "asInteger(): the quantity is not an integer of 64 bits"
)]
#[case(
    "cidr('10.0.0.0/8').containsCIDR('10.0.0.0') ",
    "cidr(): not a network in CIDR notation"
)]
#[case(
    "url('https://a:b:c/') == null",
    "url(): the URL's port is not a number"
)]
#[case(
    "url('../relative') == null",
    "url(): a URL is an absolute URI or an absolute path"
)]
fn what_has_no_answer_is_an_error(#[case] expression: &str, #[case] reason: &str) {
    let message = holds(expression).unwrap_err();
    assert!(message.contains(reason), "{expression}: {message}");
}

#[rstest]
#[case(
    "isURL('https://user:pass@example.com:80/path?query=val#fragment') && isURL('/absolute-path')"
)]
#[case("!isURL('https://a:b:c/') && !isURL('../relative-path') && !isURL('') && !isURL('a b')")]
#[case("!isURL('https://exa mple.com/') && !isURL('https://[::1/') && !isURL('https://[::g]/')")]
#[case(
    "!isURL('https://example.com/%zz') && !isURL(':a') && !isURL('https://a\\n.com') && isURL('a:b')"
)]
#[case("url('/path').getScheme() == '' && url('HTTPS://example.com/').getScheme() == 'https'")]
#[case("url('https://example.com:80/').getHost() == 'example.com:80'")]
#[case("url('https://example.com/').getHost() == 'example.com' && url('/path').getHost() == ''")]
#[case(
    "url('https://[::1]:80/').getHost() == '[::1]:80' && url('https://[::1]/').getHost() == '[::1]'"
)]
#[case(
    "url('https://example.com:80/').getHostname() == 'example.com' && url('/p').getHostname() == ''"
)]
#[case("url('https://127.0.0.1:80/').getHostname() == '127.0.0.1'")]
#[case("url('https://[::1]:80/').getHostname() == '::1'")]
#[case(
    "url('https://example.com:443/').getPort() == '443' && url('https://example.com/').getPort() == ''"
)]
#[case("url('https://ada:pw@example.com/').getHost() == 'example.com'")]
#[case("url('https://example.com/path').getEscapedPath() == '/path'")]
#[case("url('https://example.com/path with spaces/').getEscapedPath() == '/path%20with%20spaces/'")]
#[case(
    "url('https://example.com').getEscapedPath() == '' && url('/a%2Fb').getEscapedPath() == '/a%2Fb'"
)]
#[case(
    "url('/a#b').getEscapedPath() == '/a' && url('mailto:ada@example.com').getScheme() == 'mailto'"
)]
#[case(
    "url('https://example.com/path?k1=a&k2=b&k2=c').getQuery() == {'k1': ['a'], 'k2': ['b', 'c']}"
)]
#[case(
    "url('https://example.com/path?key with spaces=value+with%20spaces').getQuery() == {'key with spaces': ['value with spaces']}"
)]
#[case("url('https://example.com/path?').getQuery() == {} && url('/path').getQuery() == {}")]
#[case("url('/p?a&b=&c;d=1&%zz=1&e=%').getQuery() == {'a': [''], 'b': ['']}")]
#[case("url('/path') == url('/path') && url('/path') != url('/other') && url('/p') in [url('/p')]")]
#[case(
    "string(url('https://example.com/')) == 'https://example.com/' && type(url('/')) == kubernetes.URL"
)]
fn urls(#[case] expression: &str) {
    assert_eq!(holds(expression), Ok(true), "{expression}");
}

#[rstest]
#[case("isIP('127.0.0.1') && isIP('::1') && !isIP('127.0.0.256') && !isIP(':::1') && !isIP('')")]
#[case("!isIP('::ffff:1.2.3.4') && !isIP('fe80::1%eth0') && !isIP('127.0.0.01')")]
#[case("ip.isCanonical('127.0.0.1') && ip.isCanonical('2001:db8::abcd')")]
#[case("!ip.isCanonical('2001:DB8::ABCD') && !ip.isCanonical('2001:db8::0:0:0:abcd')")]
#[case("ip('127.0.0.1').family() == 4 && ip('::1').family() == 6")]
#[case(
    "ip('0.0.0.0').isUnspecified() && !ip('127.0.0.1').isUnspecified() && ip('::').isUnspecified()"
)]
#[case("ip('127.0.0.1').isLoopback() && !ip('192.168.0.1').isLoopback() && ip('::1').isLoopback()")]
#[case("ip('224.0.0.1').isLinkLocalMulticast() && !ip('224.0.1.1').isLinkLocalMulticast()")]
#[case("ip('ff02::1').isLinkLocalMulticast() && !ip('fd00::1').isLinkLocalMulticast()")]
#[case("ip('169.254.169.254').isLinkLocalUnicast() && !ip('192.168.0.1').isLinkLocalUnicast()")]
#[case("ip('fe80::1').isLinkLocalUnicast() && !ip('fd80::1').isLinkLocalUnicast()")]
#[case("ip('192.168.0.1').isGlobalUnicast() && !ip('255.255.255.255').isGlobalUnicast()")]
#[case(
    "ip('2001:db8::abcd').isGlobalUnicast() && !ip('ff00::1').isGlobalUnicast() && !ip('::').isGlobalUnicast()"
)]
#[case("ip('::1') == ip('0::1') && ip('::1') != ip('::2') && string(ip('0::1')) == '::1'")]
#[case("['10.0.0.1', '::1'].exists(ip, ip.isCanonical() || true) && type(ip('::1')) == net.IP")]
#[case("['10.0.0.1'].map(ip, ip(ip).family()) == [4]")]
#[case(
    "isCIDR('192.168.0.0/16') && isCIDR('::1/128') && !isCIDR('192.168.0.0/33') && !isCIDR('::1/129')"
)]
#[case(
    "!isCIDR('10.0.0.0') && !isCIDR('10.0.0.0/08') && !isCIDR('10.0.0.0/+8') && !isCIDR('::ffff:1.2.3.4/96')"
)]
#[case(
    "cidr('192.168.0.0/24').containsIP(ip('192.168.0.1')) && cidr('192.168.0.0/24').containsIP('192.168.0.1')"
)]
#[case("!cidr('192.168.0.0/24').containsIP('192.168.1.1') && !cidr('0.0.0.0/0').containsIP('::1')")]
#[case(
    "cidr('192.168.0.0/16').containsCIDR('192.168.10.0/24') && cidr('10.0.0.0/8').containsCIDR(cidr('10.0.0.0/8'))"
)]
#[case(
    "!cidr('192.168.1.0/24').containsCIDR('192.168.2.0/24') && !cidr('10.0.0.0/16').containsCIDR('10.0.0.0/8')"
)]
#[case("cidr('192.168.0.1/24').ip() == ip('192.168.0.1') && cidr('::1/128').ip().family() == 6")]
#[case(
    "cidr('192.168.0.1/24').masked() == cidr('192.168.0.0/24') && cidr('192.168.0.1/24') != cidr('192.168.0.1/24').masked()"
)]
#[case(
    "cidr('192.168.0.0/16').prefixLength() == 16 && string(cidr('192.168.0.0/16')) == '192.168.0.0/16'"
)]
fn addresses_and_networks(#[case] expression: &str) {
    assert_eq!(holds(expression), Ok(true), "{expression}");
}

#[rstest]
#[case("isQuantity('1.3G') && isQuantity('1.3Gi') && !isQuantity('1,3G') && isQuantity('10000k')")]
#[case(
    "!isQuantity('200K') && !isQuantity('Three') && !isQuantity('Mi') && !isQuantity('') && !isQuantity('-')"
)]
#[case(
    "isQuantity('.5') && isQuantity('5.') && !isQuantity('.') && !isQuantity('1.2.3') && !isQuantity('1 Gi')"
)]
#[case(
    "isQuantity('1e3') && isQuantity('1E-3') && isQuantity('1E') && !isQuantity('1e') && !isQuantity('1e1.5')"
)]
#[case("quantity('50000000G').isInteger() && quantity('50k').asInteger() == 50000")]
#[case(
    "!quantity('9999999999999999999999999999999999999G').isInteger() && !quantity('1.5').isInteger()"
)]
#[case(
    "quantity('1000m').asInteger() == 1 && quantity('-5').asInteger() == -5 && quantity('+5') == quantity('5')"
)]
#[case(
    "quantity('50k').sub(20000).asApproximateFloat() == 30000.0 && quantity('1500m').asApproximateFloat() == 1.5"
)]
#[case(
    "quantity('50k').add(quantity('20k')) == quantity('70k') && quantity('50k').add(20) == quantity('50020')"
)]
#[case("quantity('50k').add(20).sub(quantity('100k')).sub(-50000) == quantity('20')")]
#[case(
    "quantity('200M').compareTo(quantity('0.2G')) == 0 && quantity('50M').compareTo(quantity('50Mi')) == -1"
)]
#[case(
    "quantity('50Mi').compareTo(quantity('50M')) == 1 && quantity('150Mi').isGreaterThan(quantity('100Mi'))"
)]
#[case(
    "quantity('50M').isLessThan(quantity('100M')) && !quantity('100M').isLessThan(quantity('50M'))"
)]
#[case("quantity('-1').sign() == -1 && quantity('0').sign() == 0 && sign(quantity('1n')) == 1")]
#[case("quantity('1Ki') == quantity('1024') && quantity('1Ei') == quantity('1152921504606846976')")]
#[case("quantity('1.5Gi') == quantity('1536Mi') && quantity('0.5Ki') == quantity('512')")]
#[case(
    "quantity('100n') == quantity('1e-7') && quantity('1u') == quantity('1000n') && quantity('0.1n') == quantity('1n')"
)]
#[case("quantity('-0.1n') == quantity('-1n') && quantity('0e999999999999') == quantity('0')")]
#[case(
    "quantity('1e-99999') == quantity('1n') && quantity('0.000000000000001e18') == quantity('1k')"
)]
#[case("quantity('1.0000000000001Ei') == quantity('1152921504606962268150460685n')")]
#[case("quantity('1e99') == quantity('9e99') && quantity('-1e99').isLessThan(quantity('-9E'))")]
#[case(
    "string(quantity('1.50Ki')) == '1536' && string(quantity('-1500m')) == '-1.5' && string(quantity('0')) == '0'"
)]
#[case(
    "quantity('0.1').add(quantity('0.2')) == quantity('0.3') && type(quantity('1')) == kubernetes.Quantity"
)]
fn quantities(#[case] expression: &str) {
    assert_eq!(holds(expression), Ok(true), "{expression}");
}

#[rstest]
#[case("isSemver('1.0.0') && isSemver('0.1.0-alpha.1') && !isSemver('200K') && !isSemver('v1.0')")]
#[case("!isSemver('01.0.0') && !isSemver('1.0') && isSemver('v1.0', true) && isSemver('1', true)")]
#[case("semver('v1.0.0', true) == semver('1.0.0') && semver('1.0', true) == semver('1.0.0')")]
#[case("semver('01.01.01', true) == semver('1.1.1') && semver('0.0', true) == semver('0.0.0')")]
#[case(
    "semver('1.2.00-rc.1', true) == semver('1.2.0-rc.1') && semver('v1.2.3-rc.1+b', true).patch() == 3"
)]
#[case(
    "!isSemver('1.2-rc', true) && !isSemver('v1.0.0', false) && !isSemver('', true) && !isSemver('v', true)"
)]
#[case(
    "semver('1.2.3').major() == 1 && semver('1.2.3').minor() == 2 && semver('1.2.3').patch() == 3"
)]
#[case(
    "semver('1.2.3').compareTo(semver('1.2.3')) == 0 && semver('1.2.3').compareTo(semver('2.0.0')) == -1"
)]
#[case(
    "semver('1.2.3').compareTo(semver('0.1.2')) == 1 && semver('1.0.0-rc.1').isLessThan(semver('1.0.0'))"
)]
#[case("semver('1.10.0').isGreaterThan(semver('1.9.0')) && semver('1.0.0+a') == semver('1.0.0+b')")]
#[case("string(semver('v1', true)) == '1.0.0' && type(semver('1.0.0')) == kubernetes.Semver")]
fn semantic_versions(#[case] expression: &str) {
    assert_eq!(holds(expression), Ok(true), "{expression}");
}
