//! How the bookstore's page looks: HTML and CSS in one answer, nothing loaded from elsewhere, no script. Everything that
//! users or other services said is escaped. What is on the page was found out by `productpage`.

use serde_json::{Value, json};
use std::fmt::{self, Write};

const STYLE: &str = include_str!("page.css");
const COVER: &str = include_str!("cover.svg");
/// The shop's sign, also served as the page's icon.
pub(super) const ICON: &str = include_str!("icon.svg");

const TITLE: &str = "The Lighthouse Switchboard";
const SUMMARY: &str = "In the winter of 1931 the last operator on Skarv Island keeps forty-one lines alive with \
    solder, sealing wax and a very good memory. She never meets the people she connects, but she knows who may speak \
    to whom, who hangs up first, and which two lines must never be crossed. Then, in a storm, a call comes in on a \
    line that was cut ten years ago.";

/// What the page shows.
pub(super) struct Page<'a> {
    /// Who is signed in.
    pub(super) user: Option<&'a str>,
    pub(super) details: Result<Value, String>,
    pub(super) reviews: Result<Value, String>,
    /// productpage itself, details, reviews, and ratings when reviews asked it.
    pub(super) calls: Vec<Call>,
    /// The latest loads, oldest first: the digit of the version that answered, `x` for none, `?` for one unknown.
    pub(super) seen: &'a str,
    pub(super) reload_every_s: Option<u8>,
}

/// One service that took part.
pub(super) struct Call {
    service: String,
    version: Option<String>,
    instance: Option<String>,
    /// The HTTP status, or why there is none; `None` for the page itself.
    outcome: Option<Result<u64, String>>,
    milliseconds: Option<f64>,
}

impl Call {
    /// From what `reviews::call` wrote, here or in another process.
    pub(super) fn read(value: &Value) -> Self {
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        Call {
            service: text("service").unwrap_or_default(),
            version: text("version"),
            instance: text("instance"),
            outcome: value["status"].as_u64().map(Ok).or_else(|| text("error").map(Err)),
            milliseconds: value["milliseconds"].as_f64(),
        }
    }
}

/// The book as the API describes it.
pub(super) fn product() -> Value {
    json!({"id": 0, "title": TITLE, "descriptionHtml": SUMMARY})
}

/// Text that is safe in HTML, in attributes too.
struct Escaped<T>(T);

impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.to_string().chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// The whole document.
pub(super) fn render(page: &Page) -> String {
    let refresh = page
        .reload_every_s
        .map(|s| format!("<meta http-equiv=\"refresh\" content=\"{s}\">"))
        .unwrap_or_default();
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">{refresh}\
         <title>{TITLE} · Ieum Books</title><link rel=\"icon\" href=\"/static/icon.svg\">\
         <style>{STYLE}</style></head><body>\n{header}\n<main>\n{book}\n{reviews}\n{made}\n</main>\n\
         <footer>Ieum Books is a demo: four small services, one page. Nothing is for sale.</footer>\n</body></html>\n",
        header = header(page.user),
        book = book(&page.details, &page.reviews),
        reviews = reviews(&page.reviews),
        made = made(page),
    )
}

fn header(user: Option<&str>) -> String {
    let account = match user {
        Some(user) => format!(
            "<p class=\"account\">Signed in as <strong>{}</strong> <a href=\"/logout\">Sign out</a></p>",
            Escaped(user)
        ),
        None => "<form class=\"account\" method=\"post\" action=\"/login\">\
                 <label for=\"username\">Your name</label>\
                 <input id=\"username\" name=\"username\" placeholder=\"jason\" maxlength=\"40\" required \
                 autocomplete=\"off\" autocapitalize=\"none\" spellcheck=\"false\">\
                 <button>Sign in</button></form>"
            .to_owned(),
    };
    format!(
        "<header><a class=\"brand\" href=\"/productpage\">{ICON}<span>Ieum Books</span></a>{account}</header>"
    )
}

fn book(details: &Result<Value, String>, reviews: &Result<Value, String>) -> String {
    let author = match details {
        Ok(details) => format!("<p class=\"author\">by {}</p>", Escaped(plain(&details["author"]))),
        Err(_) => String::new(),
    };
    format!(
        "<section class=\"book\"><div class=\"cover\">{COVER}</div><div><p class=\"kicker\">Novel of the month</p>\
         <h1>{TITLE}</h1>{author}{average}<p class=\"summary\">{SUMMARY}</p>{details}</div></section>",
        average = average(reviews),
        details = facts(details),
    )
}

fn facts(details: &Result<Value, String>) -> String {
    const FACTS: [(&str, &str); 7] = [
        ("type", "Format"),
        ("pages", "Pages"),
        ("publisher", "Publisher"),
        ("year", "Published"),
        ("language", "Language"),
        ("ISBN-10", "ISBN-10"),
        ("ISBN-13", "ISBN-13"),
    ];
    let details = match details {
        Ok(details) => details,
        Err(why) => return unavailable("Sorry, product details are currently unavailable", why),
    };
    let mut list = "<dl>".to_owned();
    for (key, label) in FACTS {
        if !details[key].is_null() {
            let _ = write!(list, "<div><dt>{label}</dt><dd>{}</dd></div>", Escaped(plain(&details[key])));
        }
    }
    list + "</dl>"
}

/// A string as it is, other JSON as it is written.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn unavailable(what: &str, why: &str) -> String {
    format!(
        "<div class=\"unavailable\" role=\"status\"><strong>{what}</strong><span>{}</span></div>",
        Escaped(why)
    )
}

fn listed(reviews: &Result<Value, String>) -> &[Value] {
    reviews.as_ref().ok().and_then(|reviews| reviews["reviews"].as_array()).map_or(&[], Vec::as_slice)
}

fn average(reviews: &Result<Value, String>) -> String {
    let rated: Vec<&Value> = listed(reviews).iter().map(|r| &r["rating"]).collect();
    let stars: Vec<u64> =
        rated.iter().filter_map(|rating| rating["stars"].as_u64()).map(|n| n.min(5)).collect();
    if stars.is_empty() {
        return String::new();
    }
    let mean = stars.iter().sum::<u64>() as f64 / stars.len() as f64;
    let color = rated.iter().find_map(|rating| rating["color"].as_str()).unwrap_or("black");
    format!(
        "<p class=\"average\">{} <span>{mean:.1} from {} ratings</span></p>",
        star_row(mean.round() as u64, color),
        stars.len()
    )
}

fn star_row(count: u64, color: &str) -> String {
    let color = if color == "red" { "red" } else { "black" };
    let mut row = format!("<span class=\"stars {color}\" role=\"img\" aria-label=\"{count} of 5 stars\">");
    for at in 0..5 {
        row.push_str(if at < count { "<i>★</i>" } else { "<i class=\"off\">★</i>" });
    }
    row + "</span>"
}

fn reviews(reviews: &Result<Value, String>) -> String {
    let mut section = "<section class=\"reviews\"><h2>What readers say</h2>".to_owned();
    if let Err(why) = reviews {
        section.push_str(&unavailable("Sorry, reviews are currently unavailable", why));
    }
    section.push_str("<div class=\"cards\">");
    for review in listed(reviews) {
        let rating = &review["rating"];
        let stars = match (rating["stars"].as_u64(), rating["error"].as_str()) {
            (Some(stars), _) => star_row(stars.min(5), rating["color"].as_str().unwrap_or("black")),
            (None, Some(error)) => format!("<span class=\"no-stars\">{}</span>", Escaped(error)),
            (None, None) => String::new(),
        };
        let name = review["name"].as_str().or(review["reviewer"].as_str()).unwrap_or("Anonymous");
        let _ = write!(
            section,
            "<figure>{stars}<blockquote>{}</blockquote><figcaption>{}</figcaption></figure>",
            Escaped(review["text"].as_str().unwrap_or("")),
            Escaped(name)
        );
    }
    section + "</div></section>"
}

/// Who made the page, and which versions answered lately.
fn made(page: &Page) -> String {
    let mut section =
        "<section class=\"made\"><h2>How this page came together</h2><div class=\"mesh\">".to_owned();
    for (at, call) in page.calls.iter().enumerate() {
        section.push_str(&node(call, ["front", "upper", "lower", "far"].get(at).unwrap_or(&"far")));
    }
    let lines = "<svg class=\"lines fork\" viewBox=\"0 0 40 100\" preserveAspectRatio=\"none\" aria-hidden=\"true\">\
                 <path d=\"M0 50C24 50 16 25 40 25M0 50C24 50 16 75 40 75\"/></svg>";
    section.push_str(lines);
    if page.calls.len() > 3 {
        section.push_str(
            "<svg class=\"lines last\" viewBox=\"0 0 40 100\" preserveAspectRatio=\"none\" aria-hidden=\"true\">\
             <path d=\"M0 50L40 50\"/></svg>",
        );
    }
    section.push_str("</div>");
    section.push_str(&lately(page));
    section + "</section>"
}

fn node(call: &Call, place: &str) -> String {
    let (state, outcome) = match &call.outcome {
        None => ("own", "this page".to_owned()),
        Some(Ok(200)) => ("good", "200".to_owned()),
        Some(Ok(status)) => ("bad", status.to_string()),
        Some(Err(error)) => ("bad", error.clone()),
    };
    let version = call.version.as_deref().map(|v| format!(" <b>{}</b>", Escaped(v))).unwrap_or_default();
    let time = call.milliseconds.map(|ms| format!(" · {ms:.1} ms")).unwrap_or_default();
    format!(
        "<div class=\"node {place} {state}\"><p>{}{version}</p><p class=\"outcome\">{}{time}</p>\
         <p class=\"instance\">{}</p></div>",
        Escaped(&call.service),
        Escaped(&outcome),
        Escaped(call.instance.as_deref().unwrap_or("no answer of its own"))
    )
}

fn lately(page: &Page) -> String {
    let mut strip = String::new();
    let mut counts: Vec<(char, usize)> = Vec::new();
    for load in page.seen.chars() {
        let _ = write!(strip, "<i class=\"{}\" title=\"{}\"></i>", load_class(load), load_name(load));
        match counts.iter_mut().find(|(c, _)| *c == load) {
            Some((_, count)) => *count += 1,
            None => counts.push((load, 1)),
        }
    }
    counts.sort_unstable();
    let mut legend = String::new();
    for (load, count) in counts {
        let _ =
            write!(legend, "<li><i class=\"{}\"></i>{} × {count}</li>", load_class(load), load_name(load));
    }
    let automatic = match page.reload_every_s {
        Some(s) => format!("<a href=\"/productpage\">Stop reloading every {s} s</a>"),
        None => "<a href=\"/productpage?every=1\">Reload every second</a>".to_owned(),
    };
    format!(
        "<div class=\"lately\"><h3>Which reviews answered lately</h3><div class=\"strip\">{strip}</div><ul>{legend}</ul>\
         <p>Reload to ask again: a VirtualService decides which version answers, and whether <em>jason</em> is treated \
         differently. Edit it, save, reload.</p>\
         <p class=\"actions\"><a class=\"button\" href=\"/productpage\">Reload</a>{automatic}</p></div>"
    )
}

fn load_class(load: char) -> &'static str {
    match load {
        '1' => "one",
        '2' => "two",
        '3' => "three",
        'x' => "none",
        _ => "other",
    }
}

fn load_name(load: char) -> String {
    match load {
        'x' => "no answer".to_owned(),
        '?' => "unknown version".to_owned(),
        digit => format!("v{}", Escaped(digit)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVIL: &str = "<script>alert('x')</script>\"&";

    #[test]
    fn markup_in_text_is_escaped() {
        let escaped = Escaped(EVIL).to_string();
        assert_eq!(escaped, "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot;&amp;");
    }

    #[test]
    fn nothing_that_users_or_services_say_becomes_markup() {
        let call = json!({"service": EVIL, "version": EVIL, "instance": EVIL, "error": EVIL});
        let review = json!({"reviewer": EVIL, "text": EVIL, "rating": {"error": EVIL}});
        let painted = json!({"reviewer": EVIL, "text": EVIL, "rating": {"stars": 9, "color": EVIL}});
        let evil = Page {
            user: Some(EVIL),
            details: Ok(json!({"author": EVIL, "pages": EVIL, "type": [EVIL]})),
            reviews: Ok(json!({"reviews": [review, painted]})),
            calls: vec![Call::read(&call)],
            seen: EVIL,
            reload_every_s: Some(1),
        };
        assert!(!render(&evil).contains("<script"));
        let broken = Page { details: Err(EVIL.to_owned()), reviews: Err(EVIL.to_owned()), ..evil };
        assert!(!render(&broken).contains("<script"));
    }

    #[test]
    fn what_fails_is_said_and_the_rest_is_shown() {
        let page = Page {
            user: None,
            details: Ok(json!({"author": "Noor Halvorsen", "pages": 312})),
            reviews: Err("it answered 503 Service Unavailable: no healthy upstream".to_owned()),
            calls: Vec::new(),
            seen: "1x",
            reload_every_s: None,
        };
        let html = render(&page);
        assert!(html.contains("Sorry, reviews are currently unavailable"));
        assert!(html.contains("503 Service Unavailable: no healthy upstream"));
        assert!(html.contains("<dd>312</dd>"));
    }

    #[test]
    fn stars_have_the_color_of_the_version() {
        let review = |color| json!({"reviews": [{"text": "", "rating": {"stars": 4, "color": color}}]});
        let shown = |color| reviews(&Ok(review(color)));
        assert!(shown("red").contains("class=\"stars red\" role=\"img\" aria-label=\"4 of 5 stars\""));
        assert!(shown("black").contains("class=\"stars black\""));
        assert!(!reviews(&Ok(json!({"reviews": [{"text": ""}]}))).contains("class=\"stars"));
    }
}
