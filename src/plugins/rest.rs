//! A dstack REST plugin server, unchanged, as one plugin among several. (The dstack server itself
//! allows one.)

use http::Uri;
use serde_json::Value;

use super::breaker::Breaker;
use super::http::{Client, Settings};
use crate::admission::patch::{self, Compare};
use crate::admission::review::Kind;
use crate::admission::text;
use crate::admission::verdict::{Budget, Call, Denial, Fault, FaultKind, Verdict};
use crate::protocol::dstack::{Answer, decode_answer, encode_request, endpoint};

#[derive(Debug)]
pub struct Rest {
    client: Client,
    /// The address of each kind's endpoint, in the order of [`Kind::ALL`].
    endpoints: Vec<Uri>,
}

impl Rest {
    /// # Errors
    /// As [`Client::new`], and when the address has a query, which the protocol has no place for.
    pub fn new(settings: &Settings) -> Result<Self, String> {
        let base = settings.url.to_string();
        if settings.url.query().is_some() {
            return Err(format!(
                "{base}: the address of a REST plugin server has no query"
            ));
        }
        let base = base.trim_end_matches('/');
        let address = |kind| format!("{base}/apply_policies/{}", endpoint(kind));
        let endpoints = Kind::ALL.into_iter().map(|kind| address(kind).parse());
        let endpoints = endpoints
            .collect::<Result<_, http::uri::InvalidUri>>()
            .map_err(|e| format!("{base}: {e}"))?;
        Ok(Self {
            client: Client::new(settings)?,
            endpoints,
        })
    }

    pub fn url(&self) -> &Uri {
        self.client.url()
    }

    pub fn breaker(&self) -> &Breaker {
        self.client.breaker()
    }

    /// Sends the spec and reads the difference of what comes back as this plugin's patch. A plugin
    /// server writes the spec from its own models: a member that it adds at its default or writes
    /// as another form of the same number is not a change.
    ///
    /// # Errors
    /// When the server cannot be reached in time, or answers what the dstack server would refuse.
    pub async fn call(&self, call: &Call, budget: Budget) -> Result<Verdict, Fault> {
        let review = &call.review;
        let spec = text::render(&review.spec, &call.spec);
        let body = encode_request(&review.user, &review.project, &spec);
        let url = &self.endpoints[review.kind as usize];
        let answer = self.client.post(url, call, body, budget).await?;
        match decode_answer(&answer) {
            Ok(Answer::Error(message)) => {
                let denials = vec![Denial {
                    message,
                    reason: None,
                }];
                Ok(Verdict {
                    denials,
                    ..Verdict::default()
                })
            }
            Ok(Answer::Spec(answered)) => Ok(changed(&call.spec, &answered)),
            Err(why) => {
                let message = format!("its answer is not one that dstack would take: {why}");
                Err(Fault::new(FaultKind::Undecodable, message))
            }
        }
    }
}

fn changed(sent: &Value, answered: &Value) -> Verdict {
    Verdict {
        patch: patch::diff(sent, answered, Compare::Reserialized),
        ..Verdict::default()
    }
}
