//! What is answered to a request that is no review, which is never HTTP 200.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;

use super::auth::Unauthenticated;

/// Why a request is no review. The text is for the caller.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotAReview {
    #[error(
        "there is nothing here; reviews go to …/apply_policies/on_{{run,fleet,volume,gateway}}_apply"
    )]
    Path,
    #[error("reviews are sent with POST")]
    Method,
    #[error("credentials are missing or wrong")]
    Unauthenticated(Unauthenticated),
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    #[error("the body did not arrive within {}", humantime::format_duration(*.0))]
    Slow(Duration),
    #[error("the body broke off: {0}")]
    BrokenOff(String),
    #[error("{0}")]
    Body(String),
}

impl From<Unauthenticated> for NotAReview {
    fn from(unauthenticated: Unauthenticated) -> Self {
        NotAReview::Unauthenticated(unauthenticated)
    }
}

impl NotAReview {
    /// The status of its answer.
    pub fn status(&self) -> StatusCode {
        match self {
            NotAReview::Path => StatusCode::NOT_FOUND,
            NotAReview::Method => StatusCode::METHOD_NOT_ALLOWED,
            NotAReview::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
            NotAReview::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            NotAReview::Slow(_) => StatusCode::REQUEST_TIMEOUT,
            NotAReview::BrokenOff(_) | NotAReview::Body(_) => StatusCode::BAD_REQUEST,
        }
    }

    /// Its answer, which says why.
    pub fn into_response(self) -> Response<Full<Bytes>> {
        let body = serde_json::json!({"error": self.to_string()}).to_string();
        let mut response = json(self.status(), body.into());
        let headers = response.headers_mut();
        match self {
            NotAReview::Method => {
                headers.insert(ALLOW, HeaderValue::from_static("POST"));
            }
            NotAReview::Unauthenticated(Unauthenticated { scheme }) => {
                if let Ok(challenge) =
                    HeaderValue::from_str(&format!("{scheme} realm=\"dstack-admission\""))
                {
                    headers.insert(WWW_AUTHENTICATE, challenge);
                }
            }
            NotAReview::TooLarge(_) | NotAReview::Slow(_) | NotAReview::BrokenOff(_) => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            NotAReview::Path | NotAReview::Body(_) => {}
        }
        response
    }
}

/// An answer with a body of JSON.
pub(super) fn json(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
