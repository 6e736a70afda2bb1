//! Whether two filters can match the same topic.

use kubeedge_core::topic::TopicFilter;

/// True if some topic matches both. Errs to the side of true where only `$` tells them apart.
pub(crate) fn overlap(a: &TopicFilter, b: &TopicFilter) -> bool {
    let mut a = a.as_str().split('/');
    let mut b = b.as_str().split('/');
    loop {
        match (a.next(), b.next()) {
            (None, None) | (Some("#"), _) | (_, Some("#")) => return true,
            (Some("+"), Some(_)) | (Some(_), Some("+")) => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use kubeedge_core::topic::Topic;
    use proptest::prelude::*;

    use super::*;

    fn overlaps(a: &str, b: &str) -> bool {
        overlap(&TopicFilter::new(a).unwrap(), &TopicFilter::new(b).unwrap())
    }

    #[test]
    fn filters_overlap_if_a_topic_can_match_both() {
        for (a, b) in [("a/+", "+/b"), ("a/#", "a"), ("#", "x/y"), ("a/b", "a/b"), ("+/b/#", "a/+/c")] {
            assert!(overlaps(a, b) && overlaps(b, a), "{a} {b}");
        }
        for (a, b) in [("a/+", "b/+"), ("a", "a/b"), ("+/b", "a/c"), ("a/+", "a"), ("$hw/#", "x/#")] {
            assert!(!overlaps(a, b) && !overlaps(b, a), "{a} {b}");
        }
    }

    proptest! {
        #[test]
        fn what_matches_both_overlaps(topic in "[ab](/[ab]){0,3}", a in "[ab+](/[ab+]){0,3}(/#)?", b in "[ab+](/[ab+]){0,3}(/#)?") {
            let topic = Topic::new(topic).unwrap();
            let (a, b) = (TopicFilter::new(a).unwrap(), TopicFilter::new(b).unwrap());
            prop_assert!(overlap(&a, &b) || !(a.matches(&topic) && b.matches(&topic)));
        }
    }
}
