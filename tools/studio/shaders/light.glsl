// The room's light, fixed in the world: daylight from a window (key), soft bounce (fill), a warm lamp and the window
// from behind (rims). Colours are linear.
#include "noise.glsl"
uniform vec3 eye;
uniform sampler2D shadow;
uniform float exposure;
const vec3 KEY = normalize(vec3(-.52, .58, .84)), FILL = normalize(vec3(.80, .12, .68));
const vec3 LAMP = normalize(vec3(.84, .34, -.66)), WINDOW = normalize(vec3(-.88, .42, -.56));
const vec3 KEY_COLOUR = vec3(2.16, 2.00, 1.83), FILL_COLOUR = vec3(.60, .54, .49);
const vec3 LAMP_COLOUR = vec3(1.75, 1.28, .86), WINDOW_COLOUR = vec3(.78, .84, .95);
const vec2 DISK[12] = vec2[](
    vec2(-.33, -.84), vec2(.52, -.77), vec2(-.87, -.23), vec2(.10, -.31), vec2(.91, -.18), vec2(-.41, .12),
    vec2(.44, .25), vec2(-.78, .56), vec2(-.04, .64), vec2(.70, .68), vec2(-.30, .93), vec2(.02, .02));

// Share of the key light that arrives at a point of the shadow map, softened over a disk.
// The disk is turned by a noise that sticks to the surface, so that its twelve samples leave no rings.
float lit(vec4 at, vec3 rest, float bias, float radius) {
    vec3 q = at.xyz / at.w * .5 + .5;
    float s = 0., a = 6.2832 * hash(floor(rest * 260.));
    mat2 turn = mat2(cos(a), sin(a), -sin(a), cos(a));
    for (int i = 0; i < 12; i++) s += texture(shadow, q.xy + turn * DISK[i] * radius).r > q.z - bias ? 1. : 0.;
    return s / 12.;
}
// GGX specular reflection of skin (F0 = .028).
float ggx(vec3 n, vec3 v, vec3 l, float roughness) {
    vec3 h = normalize(v + l);
    float nh = max(dot(n, h), 0.), nl = max(dot(n, l), 0.), nv = max(dot(n, v), .05), a = roughness * roughness;
    float d = nh * nh * (a * a - 1.) + 1.;
    float D = a * a / (3.1416 * d * d), k = (roughness + 1.) * (roughness + 1.) / 8.;
    float G = nl / (nl * (1. - k) + k) / (nv * (1. - k) + k);
    float F = .028 + .972 * pow(1. - max(dot(h, v), 0.), 5.);
    return D * G * F * .25;
}
// Diffuse light that wraps around the terminator, more in red: the look of subsurface scattering.
vec3 wrapped(float d, vec3 w) {
    vec3 x = clamp((d + w) / (1. + w), 0., 1.);
    return x * x * (w / (1. + w)) + x * (1. - w / (1. + w));
}
vec3 ambient(vec3 n) { return mix(vec3(.34, .28, .235), vec3(.45, .455, .47), n.y * .5 + .5) * .66; }
// Exposure and a filmic curve (fit of ACES by Narkowicz 2015), then sRGB-like gamma.
vec3 film(vec3 x) {
    x = max(x * exposure, 0.);
    x = (x * (2.51 * x + .03)) / (x * (2.43 * x + .59) + .14);
    return pow(clamp(x, 0., 1.), vec3(1. / 2.2));
}
