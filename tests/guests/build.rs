//! Links the test image.

fn main() {
    image_link::image();
}
