#version 330
// Teeth and gums. A: brightness, -, gum, -.
#include "surface.glsl"
uniform vec3 lips_at;        // z of the front of the lips, opening 0 to 1, y of the upper lip
void main() {
    vec3 v = normalize(eye - P), n = normalize(N);
    vec3 c = mix(vec3(.86, .825, .755), vec3(.66, .31, .28), A.z) * A.x;
    float deep = mix(.40, 1., smoothstep(.50, .02, lips_at.x - R.z)) * mix(.84, 1., lips_at.y);
    float under_lip = mix(.74, 1., smoothstep(-.02, .06, lips_at.z - P.y));
    float corner = mix(.10, 1., max(smoothstep(0., .35, lips_at.y), smoothstep(.20, .12, abs(R.x))));
    float open = deep * under_lip * corner;
    vec3 light = KEY_COLOUR * clamp((dot(n, KEY) + .35) / 1.35, 0., 1.) * .80 + FILL_COLOUR * max(dot(n, FILL), 0.)
        + ambient(n) * 1.15;
    vec3 x = c * light * open * .95;
    x += (ggx(n, v, KEY, .22) * KEY_COLOUR + ggx(n, v, FILL, .25) * FILL_COLOUR) * 1.8 * open;
    colour = vec4(film(x), 1);
}
