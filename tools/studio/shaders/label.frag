#version 330
// The class of each pixel. Skin is split by its attributes: inside of the mouth, hair, and the plane of the jaw.
in vec3 R; in vec4 A;
out vec4 colour;
uniform float label; uniform float is_skin; uniform vec2 jaw_plane;
void main() {
    float c = label;
    if (is_skin > .5) {
        if (A.w > .5) c = 3.;
        else if (R.y < jaw_plane.x + jaw_plane.y * R.z) c = 4.;
        else if (A.z > .55) c = 2.;
    }
    colour = vec4(c / 255., 0, 0, 1);
}
