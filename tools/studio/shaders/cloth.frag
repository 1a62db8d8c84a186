#version 330
// Knitted wool. A: occlusion, -, 1 on the collar, angle around the collar.
#include "surface.glsl"
uniform vec3 tint;
void main() {
    vec3 v = normalize(eye - P), n = normalize(N);
    float height; vec3 lean = vec3(0);
    if (A.z > .5) {
        height = sin(A.w * 6.2832 * 96.);
        lean.x = .20 * cos(A.w * 6.2832 * 96.);
    } else {
        // Columns of V stitches.
        float column = R.x * 21., row = R.y * 26.;
        float across = abs(fract(column) - .5) * 2.;
        float stitch = abs(fract(row + across * .55) - .5) * 2.;
        height = (across * .55 + stitch * .75) * 1.1 - .75;
        lean = vec3(.16 * sign(fract(column) - .5) * (1. - across), .12 * (stitch - .5), 0);
    }
    float wool = noise(R * 7.) * .55 + noise(R * 34.) * .45;
    vec3 c = tint * (.88 + .24 * wool) * (1. + (A.z > .5 ? .15 : .13) * height);
    n = normalize(n + lean + vec3(0, (noise(R * 4.) - .5) * .16, 0));
    float ao = A.x, sun = lit(S, R, .007, .020);
    vec3 light = KEY_COLOUR * clamp((dot(n, KEY) + .18) / 1.18, 0., 1.) * mix(.05, 1., sun)
        + FILL_COLOUR * max(dot(n, FILL) + .15, 0.) / 1.15 * ao
        + (LAMP_COLOUR * max(dot(n, LAMP), 0.) * .8 + WINDOW_COLOUR * max(dot(n, WINDOW), 0.)) * .6 * ao + ambient(n) * ao;
    float fuzz = pow(1. - max(dot(normalize(N), v), 0.), 3.);
    colour = vec4(film(c * light * mix(.7, 1., ao) + (c * .7 + .02) * fuzz * .60 * ao), 1);
}
