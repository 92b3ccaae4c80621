//! Links the image.

fn main() {
    image_link::image();
}
