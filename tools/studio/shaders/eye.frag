#version 330
// Eyeball: sclera, iris and pupil by the angle from its axis (R is the unit sphere), reflections of window and fill.
#include "surface.glsl"
uniform vec3 lid;            // y of the upper and of the lower lid, softness of their shadow
const float IRIS = .468, PUPIL = .172;
void main() {
    vec3 v = normalize(eye - P), n = normalize(N), l = normalize(R);
    float d = acos(clamp(l.z, -1., 1.)), a = atan(l.y, l.x), t = d / IRIS;
    vec3 sclera = mix(vec3(.80, .765, .735), vec3(.72, .54, .50), smoothstep(.60, 1.10, d) * .6);
    float fibres = noise(vec3(cos(a) * 9., sin(a) * 9., d * 3.)) * .5 + noise(vec3(cos(a) * 26., sin(a) * 26., d * 4.)) * .5;
    vec3 iris = mix(vec3(.235, .130, .058), vec3(.105, .060, .032), smoothstep(.35, .95, t));
    iris = mix(iris, vec3(.40, .235, .095), smoothstep(.66, .40, t) * .65) * (.60 + .85 * fibres);
    iris = mix(iris, vec3(.020, .014, .012), smoothstep(.80, .99, t) * .80);
    vec3 c = mix(iris, sclera, smoothstep(IRIS - .025, IRIS + .025, d));
    c = mix(vec3(.004), c, smoothstep(PUPIL - .016, PUPIL + .016, d));

    float up = smoothstep(0., lid.z, lid.x - P.y), low = smoothstep(-.002, lid.z * .35, P.y - lid.y);
    float open = (.20 + .80 * up) * (.70 + .30 * low);
    vec3 light = KEY_COLOUR * clamp((dot(n, KEY) + .25) / 1.25, 0., 1.) * mix(.45, 1., up)
        + FILL_COLOUR * max(dot(n, FILL), 0.) + ambient(n);
    vec3 x = c * light * open * .92;
    if (d < IRIS) {
        // Light refracted by the cornea gathers on the side of the iris away from the window.
        float gathered = pow(max(dot(normalize(l * vec3(1, 1, .6)), normalize(vec3(-KEY.xy * .8, .75))), 0.), 12.);
        x += iris * KEY_COLOUR * .75 * gathered * smoothstep(IRIS, .3, d) * smoothstep(.15, .2, d) * up;
    }
    vec3 r = reflect(-v, n);
    vec3 kx = normalize(cross(vec3(0, 1, 0), KEY)), ky = cross(KEY, kx);
    vec3 fx = normalize(cross(vec3(0, 1, 0), FILL)), fy = cross(FILL, fx);
    vec2 w = vec2(dot(r, kx), dot(r, ky)), f = vec2(dot(r, fx), dot(r, fy));
    float window = smoothstep(.27, .20, abs(w.x)) * smoothstep(.31, .23, abs(w.y)) * step(0., dot(r, KEY));
    window *= 1. - .35 * smoothstep(.03, .01, abs(w.x));
    float fill = smoothstep(.22, .10, abs(f.x)) * smoothstep(.5, .35, abs(f.y)) * step(0., dot(r, FILL));
    float fresnel = .028 + .5 * pow(1. - max(dot(n, v), 0.), 4.);
    x += (window * 2.3 * mix(.30, 1., up) + fill * .22 * up) * vec3(1., .985, .96) * mix(1., .55, smoothstep(.45, .6, d));
    x += fresnel * vec3(.30) * up;
    float wet = smoothstep(.010, .0, abs(P.y - lid.y - .008));
    x += wet * .22 * max(dot(n, KEY), 0.);
    colour = vec4(film(x), 1);
}
