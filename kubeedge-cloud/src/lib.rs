//! kubeedge-cloud
